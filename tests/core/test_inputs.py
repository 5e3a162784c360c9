"""Inputs of a start by hand: what is declared counts, and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepflow.core.flows import Flow, Trigger
from keepflow.core.inputs import BOOLEAN, NUMBER, TEXT, given_inputs, problem_of
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


TYPED = Flow(
    "release",
    Trigger(manual=True),
    (),
    inputs={
        "version": {"type": "text", "required": True, "help": "like 1.2"},
        "dry": {"type": "boolean"},
        "workers": {"type": "number", "default": "4"},
        "level": {"choices": ("low", "high"), "required": True},
    },
)


def test_r18_inputs_have_types_defaults_and_may_be_required() -> None:
    assert given_inputs(TYPED, {"version": "1", "level": "low"}) == {
        "version": "1",
        "dry": "false",
        "workers": "4",
        "level": "low",
    }
    assert given_inputs(TYPED, {"version": "1", "level": "high", "dry": "true", "workers": "-0.5"})["workers"] == "-0.5"


def test_r18_everything_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(UsageError) as caught:
        given_inputs(TYPED, {"dry": "yes", "workers": "many", "levle": "low"})
    assert caught.value.message == (
        "release: unknown input 'levle' (did you mean 'level'?); version must be given (like 1.2); "
        "dry must be true or false; workers must be a number, like 12 or 0.5; level must be given"
    )


@pytest.mark.parametrize("value", ["", "1e5", "NaN", "0x10", "1_000", " 1", "1 ", "٣", "--1", "1;id", "01"])
def test_r18_only_plain_numbers_are_numbers(value: str) -> None:
    assert problem_of({"type": "number", "required": True}, value)


@given(st.text(max_size=30), st.sampled_from([TEXT, BOOLEAN, NUMBER]), st.booleans())
def test_what_has_no_problem_is_taken_as_it_is(value: str, kind: str, required: bool) -> None:
    entry = {"type": kind, "required": required}
    flow = Flow("x", Trigger(manual=True), (), inputs={"a": entry})
    if problem_of(entry, value) is None:
        assert given_inputs(flow, {"a": value}) == {"a": value}
    else:
        with pytest.raises(UsageError):
            given_inputs(flow, {"a": value})


def test_a_value_is_bounded_and_safe_to_store() -> None:
    assert problem_of({}, "x" * 16_385)
    assert problem_of({}, "a\0b")
