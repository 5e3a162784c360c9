"""`${KEEPFLOW_MATRIX_X}` and `${KEEPFLOW_INPUT_X}` that a job does not have are errors at their place."""

from __future__ import annotations

import pytest

from keepflow.errors import Problem
from tests.config.problems import places, problems
from tests.config.test_flow_file import load

_JOB = """\
flows:
  dev:
    on: push
    inputs: {suite: {default: fast}, dry_run: {type: boolean}}
    jobs:
      unit:
        matrix: {axes: {python: ["3.11", "3.12"]}, include: [{python: "3.13", os: debian}]}
        %s
        steps: [%s]
"""


def found(text: str) -> list[Problem]:
    return problems(lambda: load(text))


@pytest.mark.parametrize(
    ("above", "step"),
    [
        ("image: 'python:${KEEPFLOW_MATRIX_PYTHON}'", "{run: make}"),
        ("services: {db: 'db:${KEEPFLOW_INPUT_SUITE}'}", "{run: make}"),
        ("image: 'a:${KEEPFLOW_INPUT_DRY_RUN}'", "{run: make}"),
        ("timeout: 5m", "{run: make, image: 'python:${KEEPFLOW_MATRIX_PYTHON}'}"),
        ("timeout: 5m", "{build: {args: {V: '${KEEPFLOW_MATRIX_PYTHON}'}}}"),
        ("timeout: 5m", "run: 'echo ${KEEPFLOW_MATRIX_WHATEVER}'"),
    ],
)
def test_what_a_job_has_may_be_named(above: str, step: str) -> None:
    load(_JOB % (above, step))


@pytest.mark.parametrize(
    ("above", "step", "place", "words"),
    [
        (
            "image: 'python:${KEEPFLOW_MATRIX_PYTON}'",
            "{run: make}",
            (8, 16),
            "(did you mean 'KEEPFLOW_MATRIX_PYTHON'?)",
        ),
        ("image: {name: 'python:${KEEPFLOW_MATRIX_OS}'}", "{run: make}", (8, 23), "every combination"),
        ("services: {db: 'db:${KEEPFLOW_INPUT_SUIT}'}", "{run: make}", (8, 24), "is not an input of this flow"),
        ("timeout: 5m", "{run: make, image: 'x:${KEEPFLOW_MATRIX_X}'}", (9, 36), "every combination"),
        ("timeout: 5m", "{build: {args: {V: '${KEEPFLOW_MATRIX_X}'}}}", (9, 36), "every combination"),
        ("timeout: 5m", "push: 'h/r:${KEEPFLOW_INPUT_X}'", (9, 23), "is not an input of this flow"),
        ("image: 'a:${KEEPFLOW_BRANCHH}'", "{run: make}", (8, 16), "is not a variable of a job (did you mean"),
    ],
)
def test_what_a_job_does_not_have_is_an_error_at_its_place(
    above: str, step: str, place: tuple[int, int], words: str
) -> None:
    wrong = found(_JOB % (above, step))
    assert [(problem.line, problem.column, problem.code) for problem in wrong] == [(*place, "unknown-variable")], (
        places(wrong)
    )
    assert words in str(wrong[0])


def test_the_image_of_a_flow_is_for_the_jobs_that_have_none_of_their_own() -> None:
    text = (
        "flows:\n  dev:\n    on: push\n    image: 'python:${KEEPFLOW_MATRIX_PYTHON}'\n    jobs:\n"
        "      unit: {matrix: {axes: {python: ['3.12']}}, steps: [{run: make}]}\n"
        "      docs: {%s steps: [{run: make}]}\n"
        "      tell: {needs: unit, notify: team}\n"
    )
    load(text % "image: 'busybox:1',")
    [problem] = found(text % "")
    assert (problem.line, problem.column, problem.code) == (4, 12, "unknown-variable")


def test_a_line_of_steps_has_no_matrix() -> None:
    [problem] = found("flows:\n  dev:\n    on: push\n    image: 'x:${KEEPFLOW_MATRIX_A}'\n    steps: [{run: make}]\n")
    assert (problem.line, problem.column) == (4, 12)
    [problem] = found(
        "flows:\n  dev:\n    on: push\n    steps: [{run: make}, {build: {tag: 'x:${KEEPFLOW_MATRIX_A}'}}]\n"
    )
    assert (problem.line, problem.code) == (4, "unknown-variable")


def test_a_file_whose_matrix_and_inputs_are_no_such_things_is_refused_by_its_model() -> None:
    text = "flows:\n  dev:\n    on: push\n    inputs: 3\n    jobs: {a: {matrix: %s, image: x, steps: [{run: make}]}}\n"
    for matrix in ("5", "{axes: 3}", "{include: [5]}", "{include: {}}", "{axes: [a], include: [[]]}"):
        assert {problem.code for problem in found(text % matrix)} >= {"wrong-type"}
