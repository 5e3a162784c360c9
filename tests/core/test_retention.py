"""What is let go of: by count, by age, never the last good one, never what is deployed (R77)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepflow.core.retention import Ended, Rule, let_go

DAY = 86_400_000_000


def run(number: int, *, flow: str = "dev", ref: str = "refs/heads/dev", good: bool = False, age: float = 0) -> Ended:
    return Ended(number, flow, ref, good, int(-age * DAY))


@pytest.mark.parametrize(
    ("rule", "runs", "cited", "gone"),
    [
        (Rule(), [run(2, age=900), run(1, age=999)], [], []),
        (Rule(runs=1), [run(3), run(2), run(1)], [], [2, 1]),
        (Rule(runs=1), [run(3), run(2), run(1)], [2], [1]),
        (Rule(runs=1), [run(3), run(2, flow="test"), run(1)], [], [1]),
        (Rule(days=7), [run(2, age=6), run(1, age=8)], [], [1]),
        (Rule(runs=5, days=7), [run(2, age=6), run(1, age=8)], [], [1]),
        (Rule(forget=90), [run(2, age=89), run(1, age=91)], [], [1]),
        (Rule(days=7, forget=90), [run(2, age=6), run(1, age=8)], [], [1]),
        (Rule(runs=1), [run(4), run(3, good=True), run(2, good=True)], [], [2]),
        (Rule(runs=1), [run(4), run(3, good=True), run(2, good=True, ref="refs/heads/other")], [], []),
    ],
)
def test_r77_the_rule_lets_go_of_what_it_says(rule: Rule, runs: list[Ended], cited: list[int], gone: list[int]) -> None:
    assert [one.id for one in let_go(rule, runs, cited, 0)] == gone


_ended = st.builds(
    Ended,
    st.integers(1, 10**6),
    st.sampled_from(["dev", "test"]),
    st.sampled_from(["refs/heads/dev", "refs/heads/main"]),
    st.booleans(),
    st.integers(-100 * DAY, 0),
)


@given(
    st.builds(Rule, st.integers(0, 5), st.integers(0, 50)),
    st.lists(_ended, max_size=20, unique_by=lambda one: one.id),
    st.sets(st.integers(1, 10**6), max_size=5),
)
def test_r77_no_rule_lets_go_of_what_is_deployed_or_of_the_last_good_run(
    rule: Rule, runs: list[Ended], cited: set[int]
) -> None:
    runs.sort(key=lambda one: -one.id)
    cited |= {one.id for one in runs[:2]}
    gone = {one.id for one in let_go(rule, runs, cited, 0)}
    assert not gone & cited
    for flow, ref in {(one.flow, one.ref) for one in runs}:
        last_good = next((one.id for one in runs if one.good and (one.flow, one.ref) == (flow, ref)), None)
        assert last_good not in gone
