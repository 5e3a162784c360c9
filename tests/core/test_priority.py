"""Urgent work comes first, and nobody starves."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from keepflow.core.priority import HEAD_START, Priority, rank

times = st.integers(0, 10**15)


@given(times, times, st.sampled_from(Priority), st.sampled_from(Priority))
def test_a_job_is_overtaken_only_by_what_comes_within_the_next_hour(
    first: int, second: int, mine: Priority, theirs: Priority
) -> None:
    if second - first > 3600 * 1_000_000:
        assert rank(mine, first) < rank(theirs, second)


@given(times)
def test_of_two_that_come_at_once_the_urgent_one_is_first(at: int) -> None:
    assert [rank(one, at) for one in (Priority.HIGH, Priority.NORMAL, Priority.LOW)] == sorted(
        rank(one, at) for one in HEAD_START
    )
    assert len({rank(one, at) for one in HEAD_START}) == 3
