"""Inputs of a start by hand: what is declared counts, and nothing else."""

from __future__ import annotations

import pytest

from keepflow.core.flows import Flow, Trigger
from keepflow.core.inputs import given_inputs
from keepflow.errors import UsageError

FLOW = Flow(
    "checks",
    Trigger(manual=True),
    (),
    inputs={"suite": {"choices": ["fast", "all"], "default": "fast"}, "note": {"choices": [], "default": ""}},
)


def test_r18_what_is_given_goes_over_the_defaults_of_this_run_alone() -> None:
    assert given_inputs(FLOW, {"suite": "all"}) == {"suite": "all", "note": ""}
    assert given_inputs(FLOW, {}) == {"suite": "fast", "note": ""}


@pytest.mark.parametrize(
    ("given", "code", "words"),
    [
        ({"suit": "all"}, "unknown-input", "did you mean 'suite'?"),
        ({"xyz": ""}, "unknown-input", "there are: suite, note"),
        ({"suite": "most"}, "bad-input", "must be one of fast, all"),
    ],
)
def test_r18_an_unknown_key_or_a_value_that_is_no_choice_is_an_error(
    given: dict[str, str], code: str, words: str
) -> None:
    with pytest.raises(UsageError) as caught:
        given_inputs(FLOW, given)
    assert caught.value.code == code
    assert words in caught.value.message


def test_a_flow_without_inputs_says_that_it_takes_none() -> None:
    with pytest.raises(UsageError, match="it takes none"):
        given_inputs(Flow("dev", Trigger(manual=True), ()), {"a": "b"})
