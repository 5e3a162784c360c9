"""`${NAME}`: known names only, replaced once, never looked into again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepflow.core.interpolation import VARIABLES, interpolate, problem_of

values = dict.fromkeys(VARIABLES, "v")


@pytest.mark.parametrize("name", [*VARIABLES, "KEEPFLOW_INPUT_SUITE"])
def test_every_variable_of_a_job_may_be_named(name: str) -> None:
    assert problem_of(f"a-${{{name}}}-b") is None


@pytest.mark.parametrize(
    "text", ["${FOO}", "${}", "${PATH}", "${BUILD_NUMBER", "${BUILD_NUMBER:-1}", "${KEEPFLOW_INPUT_a b}", "${${X}}"]
)
def test_anything_else_is_a_problem(text: str) -> None:
    assert problem_of(text)


@pytest.mark.parametrize("text", ["plain", "$BUILD_NUMBER", "$$", "{BUILD_NUMBER}", "%(x)s", "{{ 7*7 }}", "100 $"])
def test_other_signs_mean_nothing(text: str) -> None:
    assert problem_of(text) is None
    assert interpolate(text, {}) == text


def test_a_value_is_put_in_once_and_not_looked_into() -> None:
    assert interpolate("a:${BUILD_NUMBER}", {"BUILD_NUMBER": "${JOB_NAME}"}) == "a:${JOB_NAME}"


def test_a_variable_without_a_value_is_an_error_and_never_empty() -> None:
    with pytest.raises(KeyError, match="KEEPFLOW_TAG"):
        interpolate("${KEEPFLOW_TAG}", {})


@given(st.text(alphabet="${}ABUILD_NUMBER", max_size=30))
def test_what_has_no_problem_can_be_filled_in(text: str) -> None:
    if problem_of(text) is None:
        interpolate(text, values)
