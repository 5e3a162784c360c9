"""Whose turn it is: no project starves, no job waits for one that needs another agent (R42, R55)."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from keepflow.core.queueing import Seat, Waiting, choose, fits, in_turn

lines = st.lists(st.tuples(st.integers(1, 4), st.integers(0, 9)), max_size=40).map(
    lambda found: [Waiting(job, project, rank) for job, (project, rank) in enumerate(found, 1)]
)
holdings = st.dictionaries(st.integers(1, 4), st.integers(0, 5))
seats = st.builds(
    Seat,
    st.integers(1, 9),
    st.frozensets(st.sampled_from(["gpu", "arm", "big"])),
    st.just(frozenset({"run"})),
    st.integers(1, 4),
    st.integers(-1, 4),
)


@given(lines, holdings)
def test_r55_everybody_has_a_turn_and_the_most_urgent_of_a_project_is_first(
    waiting: list[Waiting], holding: dict[int, int]
) -> None:
    order = in_turn(waiting, holding)
    assert sorted(order) == [one.job for one in waiting]
    known = {one.job: one for one in waiting}
    for number in {one.project for one in waiting}:
        own = [(known[job].rank, job) for job in order if known[job].project == number]
        assert own == sorted(own)


@given(lines, holdings, st.integers(0, 40))
def test_r55_no_project_gets_a_second_job_before_another_has_its_first(
    waiting: list[Waiting], holding: dict[int, int], slots: int
) -> None:
    project = {one.job: one.project for one in waiting}
    order = in_turn(waiting, holding)
    has = Counter(holding) + Counter(project[job] for job in order[:slots])
    for job in order[slots:]:
        got = [has[project[given]] for given in order[:slots]]
        assert has[project[job]] >= max(got, default=0) - 1


@given(st.lists(seats, max_size=6, unique_by=lambda seat: seat.agent))
def test_r42_the_agent_with_the_largest_free_share_gets_the_job(found: list[Seat]) -> None:
    chosen = choose(found)
    free = {seat.agent: seat.free / seat.slots for seat in found if seat.free > 0}
    assert (chosen is None) == (not free)
    if chosen is not None:
        assert free[chosen] == max(free.values())


def test_r42_an_agent_fits_when_it_has_every_label_and_knows_every_step() -> None:
    seat = Seat(1, frozenset({"gpu", "big"}), frozenset({"run", "build"}), 1, 1)
    assert fits(seat, frozenset(), frozenset({"run"}))
    assert fits(seat, frozenset({"gpu", "big"}), frozenset({"run"}))
    assert not fits(seat, frozenset({"gpu", "arm"}), frozenset({"run"}))
    assert not fits(seat, frozenset(), frozenset({"push"}))


def test_r42_of_equal_agents_the_one_that_is_needed_less_gets_the_job() -> None:
    plain = Seat(2, frozenset(), frozenset(), 1, 1)
    special = Seat(1, frozenset({"gpu"}), frozenset(), 1, 1)
    assert choose([special, plain]) == 2
