"""Graphs of jobs: the order they run in, what their stages and edges mean, and every mistake told by its name."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepflow.core import graphs
from keepflow.core.flows import Flow, FlowFile, GraphJob, JobKind, PlannedJob, Trigger, When
from keepflow.core.graphs import Fault
from keepflow.core.planning import plan
from keepflow.core.progress import NEEDS, JobView, progress
from keepflow.core.states import FINAL, Reason, State


def job(
    key: str,
    *needs: str,
    kind: JobKind = JobKind.SCRIPT,
    when: When | None = None,
    stage: str = "",
    success: Sequence[str] = (),
    failure: Sequence[str] = (),
    may_fail: bool = False,
) -> GraphJob:
    """Make one entry of a graph, short."""
    planned = PlannedJob(key, kind, needs, target="dev", allow_failure=may_fail, stage=stage)
    return GraphJob(planned, when, tuple(success), tuple(failure))


def wired(*jobs: GraphJob, stages: Sequence[str] = ()) -> list[tuple[str, tuple[str, ...], str]]:
    return [(one.key, one.needs, one.when) for one in graphs.wire(jobs, stages)]


def codes(*jobs: GraphJob, stages: Sequence[str] = ()) -> list[tuple[str, tuple[str | int, ...], str]]:
    return [(fault.job, fault.at, fault.code) for fault in graphs.faults(jobs, stages)]


def only(*jobs: GraphJob, stages: Sequence[str] = ()) -> Fault:
    (found,) = graphs.faults(jobs, stages)
    return found


# --- meaning ---------------------------------------------------------------------------------------------------------


def test_r20_independent_jobs_stand_on_one_level_and_a_job_after_all_that_it_needs() -> None:
    made = graphs.wire([job("ship", "unit", "docs"), job("unit", "build"), job("docs"), job("build")])
    assert [one.key for one in made] == ["docs", "build", "unit", "ship"]
    assert graphs.levels(made) == {"docs": 1, "build": 1, "unit": 2, "ship": 3}
    assert [graphs.reason(one) for one in made] == [
        "starts at once: it needs no other job",
        "starts at once: it needs no other job",
        "starts when build has succeeded",
        "starts when unit and docs have succeeded",
    ]


def test_r19_a_stage_begins_when_all_of_the_stage_before_went_well() -> None:
    found = wired(
        job("docs", stage="report"),
        job("unit", stage="test"),
        job("compile", "check", stage="build"),
        job("check", stage="build"),
        stages=["build", "test", "report"],
    )
    assert found == [
        ("check", (), "success"),
        ("compile", ("check",), "success"),
        ("unit", ("compile", "check"), "success"),
        ("docs", ("unit",), "success"),
    ]


def test_r27_the_order_of_circle_holds_as_stages() -> None:
    order = ["pre-build", "build", "integration", "push", "post-build", "deploy"]
    found = graphs.wire([job(name, stage=name) for name in sorted(order)], order)
    assert [one.key for one in found] == order
    assert list(graphs.levels(found).values()) == [1, 2, 3, 4, 5, 6]


def test_a_stage_does_not_wait_for_a_handler_of_failures_and_skips_empty_stages() -> None:
    found = wired(
        job("build", stage="a"),
        job("mail", when=When.FAILURE, stage="b"),
        job("ship", stage="d"),
        stages=["a", "b", "c", "d"],
    )
    assert found == [("build", (), "success"), ("mail", ("build",), "failure"), ("ship", ("build",), "success")]


def test_r22_edges_name_what_runs_after_a_success_and_after_a_failure() -> None:
    """The sample of flow-build-server: one job after the other, and mail when any of them failed."""
    found = wired(
        job("git", success=["build"], failure=["email"]),
        job("build", success=["deploy"], failure=["email"]),
        job("deploy", success=["integration-tests"], failure=["email"]),
        job("integration-tests", failure=["email"]),
        job("email"),
    )
    assert found == [
        ("git", (), "success"),
        ("build", ("git",), "success"),
        ("deploy", ("build",), "success"),
        ("integration-tests", ("deploy",), "success"),
        ("email", ("git", "build", "deploy", "integration-tests"), "failure"),
    ]


# --- mistakes --------------------------------------------------------------------------------------------------------


def test_r20_a_cycle_is_named_with_every_job_in_it() -> None:
    fault = only(job("a", "c"), job("b", "a"), job("c", "b"), job("d", "c"), job("e"))
    assert (fault.job, fault.code) == ("a", "cycle")
    assert fault.sentence == "none of these could ever start: a needs c, c needs b, b needs a"
    assert only(job("a", "a")).sentence == "it needs itself"


def test_r20_an_unknown_need_is_told_with_the_name_that_was_meant() -> None:
    fault = only(job("unit"), job("ship", "unti"))
    assert fault == Fault("ship", ("needs", 0), "unknown-job", "there is no job 'unti' (did you mean 'unit'?)")
    assert codes(job("a", success=["x"], failure=["y"])) == [
        ("a", ("success", 0), "unknown-job"),
        ("a", ("failure", 0), "unknown-job"),
    ]


@pytest.mark.parametrize(
    ("jobs", "stages", "expected"),
    [
        ([job("a", stage="tset")], ["test"], ("a", ("stage",), "unknown-stage")),
        ([job("a", stage="test")], [], ("a", ("stage",), "unknown-stage")),
        ([job("a")], ["test"], ("a", (), "missing")),
        ([job("a", "b", stage="1"), job("b", stage="2")], ["1", "2"], ("a", ("needs", 0), "wrong-stage")),
        ([job("a"), job("b", "a", "a")], [], ("b", ("needs", 1), "conflict")),
        ([job("a", success=["b"], failure=["b"]), job("b")], [], ("b", (), "needs-choice")),
        ([job("a", failure=["b"]), job("b", when=When.SUCCESS)], [], ("b", ("when",), "conflict")),
        ([job("a", success=["b"]), job("b", when=When.FAILURE)], [], ("b", ("when",), "conflict")),
        ([job("a", failure=["b"]), job("c"), job("b", "c")], [], ("b", (), "needs-choice")),
        ([job("a"), job("b", when=When.FAILURE)], [], ("b", ("when",), "unreachable")),
        ([job("a"), job("b", when=When.ALWAYS)], [], ("b", ("when",), "unreachable")),
        ([job("a", kind=JobKind.DEPLOY)], [], ("a", (), "unreachable")),
    ],
)
def test_a_mistake_is_told_at_its_place(
    jobs: list[GraphJob], stages: list[str], expected: tuple[str, tuple[str | int, ...], str]
) -> None:
    found = codes(*jobs, stages=stages)
    assert expected in found
    assert {key for key, _, _ in found} == {expected[0]}


def test_a_job_named_for_both_ends_of_another_says_that_it_always_runs() -> None:
    assert codes(job("a", success=["b"], failure=["b"]), job("b", when=When.ALWAYS)) == []


def test_a_job_that_needs_a_success_and_the_handler_of_its_failure_can_never_run() -> None:
    fault = only(job("a"), job("h", "a", when=When.FAILURE), job("b", "a"), job("never", "h", "b"))
    assert (fault.job, fault.code) == ("never", "unreachable")
    assert fault.sentence == "it can never run: h runs only after a failure of a, which must have succeeded"


def test_a_handler_of_a_job_that_may_fail_can_run_and_so_can_what_needs_both() -> None:
    assert codes(job("a", may_fail=True), job("h", "a", when=When.FAILURE), job("b", "a", "h")) == []


# --- for every graph -------------------------------------------------------------------------------------------------

names = st.sampled_from("abcdef")


@st.composite
def any_graphs(draw: st.DrawFn) -> tuple[list[GraphJob], list[str]]:
    """Make a graph as somebody might write it, right or wrong."""
    stages = draw(st.lists(st.sampled_from(["one", "two", "three"]), unique=True, max_size=3))
    several = st.lists(names, max_size=2)
    keys = draw(st.lists(names, min_size=1, max_size=6, unique=True))
    made = [
        job(
            key,
            *draw(several),
            kind=draw(st.sampled_from([JobKind.SCRIPT, JobKind.SCRIPT, JobKind.DEPLOY])),
            when=draw(st.none() | st.sampled_from(When)),
            stage=draw(st.sampled_from(stages)) if stages else "",
            success=draw(st.lists(names, max_size=1)),
            failure=draw(st.lists(names, max_size=1)),
            may_fail=draw(st.booleans()),
        )
        for key in keys
    ]
    return made, stages


@given(any_graphs())
def test_any_graph_is_wired_in_a_topological_order_or_its_mistakes_are_named(
    graph: tuple[list[GraphJob], list[str]],
) -> None:
    jobs, stages = graph
    found = graphs.faults(jobs, stages)
    keys = [one.job.key for one in jobs]
    assert all(fault.job in keys and fault.sentence.isprintable() for fault in found)
    if found:
        return
    made = graphs.wire(jobs, stages)
    order = [one.key for one in made]
    assert sorted(order) == sorted(keys)
    assert all(need in order[: order.index(one.key)] for one in made for need in one.needs)
    levels = graphs.levels(made)
    assert all(levels[need] < levels[one.key] for one in made for need in one.needs)
    assert all(graphs.reason(one) for one in made)


@given(st.lists(st.tuples(names, st.lists(names, max_size=3, unique=True)), min_size=1, unique_by=lambda one: one[0]))
def test_r20_circles_are_told_exactly_when_no_order_exists(written: list[tuple[str, list[str]]]) -> None:
    keys = {key for key, _ in written}
    jobs = [job(key, *[need for need in needs if need in keys]) for key, needs in written]
    waiting = {one.job.key: set(one.job.needs) for one in jobs}
    while free := [key for key, needs in waiting.items() if not needs & set(waiting)]:
        for key in free:
            del waiting[key]
    circles = [fault for fault in graphs.faults(jobs) if fault.code == "cycle"]
    assert bool(circles) == bool(waiting)
    assert all(fault.job in waiting for fault in circles)


@given(any_graphs(), st.data())
def test_r20_every_job_of_a_graph_without_faults_ends_and_each_can_run(
    graph: tuple[list[GraphJob], list[str]], data: st.DataObject
) -> None:
    jobs, stages = graph
    if graphs.faults(jobs, stages):
        return
    made = plan(Flow("x", Trigger(), jobs=tuple(jobs), stages=tuple(stages)), FlowFile({})).jobs
    views = {
        one.key: JobView(
            one.key, State.WAITING, Reason(NEEDS, "waits"), one.needs, one.when, one.allow_failure, pending=True
        )
        for one in made
    }
    for _ in range(2 * len(made) + 2):
        result = progress(list(views.values()))
        for key, reason in result.skipped.items():
            views[key] = _moved(views[key], State.SKIPPED, reason)
        for key in result.ready:
            end = data.draw(st.sampled_from([State.SUCCEEDED, State.FAILED]))
            views[key] = _moved(views[key], end, Reason("exit", "ended"))
    assert all(view.state in FINAL for view in views.values())
    result = progress(list(views.values()))
    fails = [view for view in views.values() if view.state == State.FAILED and not view.allow_failure]
    assert result.state == (State.FAILED if fails else State.SUCCEEDED)


def _moved(view: JobView, state: State, reason: Reason) -> JobView:
    return JobView(view.key, state, reason, view.needs, view.when, view.allow_failure)
