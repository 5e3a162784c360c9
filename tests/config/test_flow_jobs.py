"""Graphs in the flow file: read in full, every mistake at its line and column, all of them at once."""

from __future__ import annotations

import pytest

from keepflow.config.flow_file import load_flow
from keepflow.core.flows import JobKind, PlannedJob
from keepflow.core.planning import plan
from tests.config.problems import places, problems
from tests.config.test_flow_file import KINDS

CHECKS = """\
flows:
  checks:
    on: push
    jobs:
      unit: {steps: [{run: make test}]}
      lint: {steps: [{run: make lint}], allow_failure: true}
      package:
        needs: unit
        steps:
          - run: make package
          - build: .
      ship: {needs: [package, lint], deploy: dev}
      clean: {needs: [ship, unit], when: always, steps: [{run: make clean}]}
"""


def planned(text: str, flow: str) -> tuple[PlannedJob, ...]:
    file = load_flow(text, KINDS)
    return plan(file.flows[flow], file).jobs


def refused(jobs: str, more: str = "") -> list[tuple[int, int, str]]:
    return places(problems(load_flow, f"flows:\n  a:\n    on: push\n    jobs: {jobs}\n{more}", KINDS))


def test_a_graph_is_read_in_full() -> None:
    made = planned(CHECKS, "checks")
    assert [(job.key, job.kind, job.needs, job.when, job.allow_failure) for job in made] == [
        ("unit", JobKind.SCRIPT, (), "success", False),
        ("lint", JobKind.SCRIPT, (), "success", True),
        ("package", JobKind.SCRIPT, ("unit",), "success", False),
        ("ship", JobKind.DEPLOY, ("package", "lint"), "success", False),
        ("clean", JobKind.SCRIPT, ("ship", "unit"), "always", False),
    ]
    assert [step.kind for step in made[2].steps] == ["run", "build"]
    assert made[3].target == "dev"


def test_r19_stages_are_sugar_for_needs() -> None:
    text = """\
flows:
  a:
    on: push
    stages: [build, test]
    jobs:
      unit: {stage: test, steps: [{run: b}]}
      compile: {stage: build, steps: [{run: a}]}
"""
    assert [(job.key, job.needs, job.stage) for job in planned(text, "a")] == [
        ("compile", (), "build"),
        ("unit", ("compile",), "test"),
    ]


def test_r22_a_job_key_that_is_written_twice_is_refused_and_never_lost() -> None:
    text = "{}\n      job: {steps: [{run: a}]}\n      job: {steps: [{run: b}]}\n"
    assert refused(text.removeprefix("{}")) == [(6, 7, "duplicate-key")]


@pytest.mark.parametrize(
    ("jobs", "problem"),
    [
        ("{}", (4, 11, "empty")),
        ("[]", (4, 11, "wrong-type")),
        ("{A: {steps: [{run: a}]}}", (4, 12, "bad-name")),
        ("{a: x}", (4, 15, "wrong-type")),
        ("{a: {}}", (4, 15, "missing")),
        ("{a: {needs: []}}", (4, 15, "missing")),
        ("{a: {steps: []}}", (4, 23, "empty")),
        ("{a: {steps: [{rum: a}]}}", (4, 25, "unknown-key")),
        ("{a: {stesp: [{run: a}], steps: [{run: a}]}}", (4, 16, "unknown-key")),
        ("{a: {steps: [{run: a}], deploy: dev}}", (4, 35, "conflict")),
        ("{a: {steps: [{run: a}, {deploy: dev}]}}", (4, 35, "conflict")),
        ("{a: {steps: [{run: a}]}, b: {needs: c, deploy: Dev}}", (4, 58, "bad-name")),
        ("{a: {steps: [{run: a}], when: allways}}", (4, 41, "bad-value")),
        ("{a: {steps: [{run: a}], allow_failure: yes}}", (4, 50, "wrong-type")),
        ("{a: {steps: [{run: a}]}, b: {needs: [c], steps: [{run: b}]}}", (4, 48, "unknown-job")),
        ("{a: {steps: [{run: a}]}, b: {needs: c, steps: [{run: b}]}}", (4, 47, "unknown-job")),
        ("{a: {needs: b, steps: [{run: a}]}, b: {needs: a, steps: [{run: b}]}}", (4, 12, "cycle")),
        ("{a: {stage: x, steps: [{run: a}]}}", (4, 23, "unknown-stage")),
        ("{a: {when: failure, steps: [{run: a}]}}", (4, 22, "unreachable")),
        ("{a: {deploy: dev}}", (4, 12, "unreachable")),
        ("{a: {approve: [bo]}}", (4, 25, "bad-text")),
        ("{a: {matrix: {}, steps: [{run: a}]}}", (4, 16, "empty")),
        ("{a: {matrix: {axes: {x: []}}, steps: [{run: a}]}}", (4, 35, "empty")),
        ("{a: {matrix: {axes: {x-y: [1]}}, steps: [{run: a}]}}", (4, 32, "bad-name")),
        ("{a: {matrix: {x: [1]}, steps: [{run: a}]}}", (4, 25, "unknown-key")),
        ("{a: {matrix: {axes: {x: [1]}, exclude: [{x: 2}]}, steps: [{run: a}]}}", (4, 51, "unreachable")),
        ("{a: {matrix: {axes: {x: [1]}, exclude: [{x: 1}]}, steps: [{run: a}]}}", (4, 16, "empty")),
        ("{a: {steps: [{run: a}]}, b: {needs: a, matrix: {axes: {x: [1]}}, deploy: dev}}", (4, 50, "conflict")),
    ],
)
def test_r16_r20_a_wrong_graph_is_told_at_its_place(jobs: str, problem: tuple[int, int, str]) -> None:
    assert refused(jobs) == [problem]


def test_a_flow_says_its_work_in_one_way() -> None:
    assert refused("{a: {steps: [{run: a}]}}", "    steps: [{run: a}]\n") == [(4, 5, "conflict")]
    assert refused("{a: {stage: x, steps: [{run: a}]}}", "    stages: [x, y, x]\n") == [(5, 20, "conflict")]
    text = "flows: {a: {on: push, stages: [x], steps: [{run: a}]}}\n"
    assert places(problems(load_flow, text, KINDS)) == [(1, 23, "conflict")]


def test_a_graph_has_a_limit() -> None:
    many = ", ".join(f"j{n}: {{steps: [{{run: a}}]}}" for n in range(257))
    assert refused(f"{{{many}}}") == [(4, 5, "too-many")]


def test_a_matrix_counts_as_all_of_its_jobs() -> None:
    axes = ", ".join(f"a{n}: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]" for n in range(9))
    assert refused(f"{{a: {{matrix: {{axes: {{{axes}}}}}, steps: [{{run: a}}]}}}}") == [(4, 16, "too-many")]
    text = "flows: {a: {on: push, jobs: {unit: {matrix: {axes: {v: [3.10, on]}}, steps: [{run: a}]}}}}\n"
    assert [(job.key, job.matrix) for job in planned(text, "a")] == [
        ("unit-3-10", {"v": "3.10"}),
        ("unit-on", {"v": "on"}),
    ]


def test_a_near_miss_is_offered() -> None:
    text = "flows: {a: {on: push, jobs: {unit: {steps: [{run: a}]}, b: {needs: unti, steps: [{run: b}]}}}}\n"
    (found,) = problems(load_flow, text, KINDS)
    assert found.message == "flows.a.jobs.b.needs[0]: there is no job 'unti' (did you mean 'unit'?)"
