"""When another try follows: by exit code and by cause, and never more often than said (R59)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepflow.core.retrying import CAUSES, Retry, cause_of, from_json, to_json
from keepflow.core.states import FINAL, State

rules = st.builds(
    Retry,
    st.integers(1, 20),
    st.lists(st.integers(1, 255), max_size=3).map(tuple),
    st.lists(st.sampled_from(CAUSES), max_size=3).map(tuple),
    st.sampled_from((0.0, 30.0)),
)
ends = st.tuples(st.sampled_from(sorted(FINAL)), st.sampled_from((*CAUSES, "config", "cancelled", "")))


@pytest.mark.parametrize(
    ("rule", "state", "code", "exit_code", "follows"),
    [
        (Retry(1), State.FAILED, "exit", 1, True),
        (Retry(1), State.FAILED, "timeout", 124, True),
        (Retry(1), State.FAILED, "system", None, True),
        (Retry(1), State.LOST, "lost", None, False),
        (Retry(1, on=("lost",)), State.LOST, "agent-restarted", None, True),
        (Retry(1, on=("lost",)), State.FAILED, "exit", 1, False),
        (Retry(1, on_exit=(75,)), State.FAILED, "exit", 75, True),
        (Retry(1, on_exit=(75,)), State.FAILED, "exit", 1, False),
        (Retry(1, on_exit=(75,)), State.FAILED, "timeout", 124, False),
        (Retry(1, on_exit=(75,), on=("timeout",)), State.FAILED, "timeout", 124, True),
        (Retry(1), State.FAILED, "config", None, False),
        (Retry(1), State.FAILED, "unknown-step", None, False),
        (Retry(1), State.CANCELLED, "cancelled", None, False),
        (Retry(1), State.SUCCEEDED, "", 0, False),
    ],
)
def test_r59_a_rule_names_exit_codes_and_causes(
    rule: Retry, state: State, code: str, exit_code: int | None, follows: bool
) -> None:
    assert rule.after(1, state, code, exit_code) is follows


@given(rules, ends, st.none() | st.integers(0, 255))
def test_r59_there_are_never_more_tries_than_the_rule_says_and_none_after_a_good_end(
    rule: Retry, end: tuple[State, str], exit_code: int | None
) -> None:
    tries = 1
    while rule.after(tries, *end, exit_code):
        tries += 1
        assert tries <= rule.max + 1
    if cause_of(*end) is None:
        assert tries == 1


@given(rules)
def test_a_rule_is_stored_and_read_back(rule: Retry) -> None:
    assert from_json(to_json(rule)) == rule
    assert from_json(None) is None


def test_the_reason_counts_the_tries() -> None:
    assert Retry(2).reason(1, "it failed").sentence == "try 2 of 3 follows, because it failed"
    assert Retry(2, delay=90).reason(2, "it failed").sentence == "try 3 of 3 follows in 1m30s, because it failed"
