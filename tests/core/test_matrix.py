"""One job for every combination of values: which ones, in which order, and what needs whom then."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from keepflow.core.flows import Flow, FlowFile, GraphJob, JobKind, PlannedJob, Trigger
from keepflow.core.matrix import Matrix, combinations, fits
from keepflow.core.planning import plan, plan_from_json, plan_to_json


def test_a_matrix_is_every_value_with_every_other_less_what_is_excluded_and_what_is_included_besides() -> None:
    matrix = Matrix(
        axes={"python": ("3.11", "3.12"), "os": ("debian", "alpine")},
        include=({"python": "3.13"}, {"python": "3.12", "os": "debian"}),
        exclude=({"python": "3.11", "os": "alpine"},),
    )
    assert [tuple(one.values()) for one in combinations(matrix)] == [
        ("3.11", "debian"),
        ("3.12", "debian"),
        ("3.12", "alpine"),
        ("3.13",),
    ]


def planned(*jobs: GraphJob) -> tuple[PlannedJob, ...]:
    return plan(Flow("x", Trigger(), jobs=jobs), FlowFile({})).jobs


def test_what_needs_a_job_with_a_matrix_needs_all_of_them() -> None:
    unit = PlannedJob("unit", JobKind.SCRIPT)
    other = PlannedJob("unit-3-11", JobKind.SCRIPT)
    ship = PlannedJob("ship", JobKind.SCRIPT, ("unit",))
    found = planned(GraphJob(unit, matrix=Matrix({"python": ("3.11", "3/12", "…")})), GraphJob(other), GraphJob(ship))
    assert [(job.key, job.needs, job.matrix) for job in found] == [
        ("unit-3-11-2", (), {"python": "3.11"}),
        ("unit-3-12", (), {"python": "3/12"}),
        ("unit-2", (), {"python": "…"}),
        ("unit-3-11", (), {}),
        ("ship", ("unit-3-11-2", "unit-3-12", "unit-2"), {}),
    ]


values = st.lists(st.text(max_size=4), min_size=1, max_size=3, unique=True).map(tuple)
axes = st.dictionaries(st.sampled_from(["a", "b", "c"]), values, max_size=3)
some = st.lists(st.dictionaries(st.sampled_from(["a", "b"]), st.text(max_size=2), min_size=1), max_size=3).map(tuple)


@given(st.builds(Matrix, axes, some, some))
def test_every_combination_comes_once_under_a_key_of_its_own(matrix: Matrix) -> None:
    found = combinations(matrix)
    assert len(found) <= matrix.most
    assert all(found.count(one) == 1 for one in found)
    assert all(one in matrix.include or not any(fits(one, gone) for gone in matrix.exclude) for one in found)
    jobs = (GraphJob(PlannedJob("j", JobKind.SCRIPT), matrix=matrix), GraphJob(PlannedJob("k", JobKind.SCRIPT, ("j",))))
    made = plan(Flow("x", Trigger(), jobs=jobs), FlowFile({}))
    keys = [job.key for job in made.jobs]
    assert len(set(keys)) == len(keys) == len(found) + 1
    assert all(len(key) <= 100 for key in keys)
    assert made.jobs[-1].needs == tuple(keys[:-1])
    assert plan_from_json(plan_to_json(made)) == made
