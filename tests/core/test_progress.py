"""How runs move on, for every graph of jobs and every way it can go."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from keepflow.core.progress import NEEDS, JobView, needs_reason, progress
from keepflow.core.states import FINAL, Reason, State

ENDS = (State.SUCCEEDED, State.FAILED, State.CANCELLED, State.SUPERSEDED, State.LOST)


@st.composite
def graphs(draw: st.DrawFn) -> list[JobView]:
    """Make a fresh graph without cycles; jobs stand in any order."""
    size = draw(st.integers(1, 8))
    made = [
        JobView(
            key=f"j{n}",
            state=State.WAITING,
            reason=Reason(NEEDS, "waits"),
            needs=tuple(draw(st.sets(st.sampled_from([f"j{m}" for m in range(n)]), max_size=3)) if n else ()),
            when=draw(st.sampled_from(["success", "success", "failure", "always"])),
            allow_failure=draw(st.booleans()),
            pending=True,
        )
        for n in range(size)
    ]
    return draw(st.permutations(made))


def _apply(jobs: list[JobView]) -> list[JobView]:
    result = progress(jobs)
    moved = []
    for job in jobs:
        if job.key in result.skipped:
            moved.append(replace(job, state=State.SKIPPED, reason=result.skipped[job.key], pending=False))
        elif job.key in result.ready:
            moved.append(replace(job, state=State.QUEUED, reason=Reason("ready", "waits for an agent"), pending=False))
        else:
            moved.append(job)
    return moved


@given(graphs(), st.data())
def test_r20_every_run_ends_whatever_its_jobs_do_and_in_whatever_order(
    jobs: list[JobView], data: st.DataObject
) -> None:
    for _ in range(3 * len(jobs) + 1):
        jobs = _apply(jobs)
        result = progress(jobs)
        assert result.ready == ()
        assert result.skipped == {}, "one call settles everything that follows from it"
        live = [n for n, job in enumerate(jobs) if job.state not in FINAL]
        assert (result.state in FINAL) == (not live)
        if not live:
            break
        queued = [n for n in live if not jobs[n].pending]
        assert queued, "somebody can always go on"
        n = data.draw(st.sampled_from(queued))
        end = data.draw(st.sampled_from(ENDS))
        jobs[n] = replace(
            jobs[n], state=end, reason=Reason("exit", "ended") if end != State.SUCCEEDED else Reason("", "")
        )
    assert all(job.state in FINAL for job in jobs)
    for job in jobs:
        if job.state == State.SKIPPED:
            assert job.reason.sentence


@given(graphs(), st.data())
def test_a_job_starts_only_after_all_it_needs_went_well(jobs: list[JobView], data: st.DataObject) -> None:
    ends = {job.key: data.draw(st.sampled_from([*ENDS, None])) for job in jobs}
    views = [job if ends[job.key] is None else replace(job, state=ends[job.key], pending=False) for job in jobs]
    result = progress(views)
    known = {job.key: job for job in views}
    for key in result.ready:
        job = known[key]
        needed = [known[need] for need in job.needs]
        if job.when == "success":
            assert all(
                need.state == State.SUCCEEDED or (need.state == State.FAILED and need.allow_failure) for need in needed
            )
        else:
            assert all(need.state in FINAL or need.key in result.skipped for need in needed)


def test_a_failed_job_skips_all_that_stand_behind_it_and_says_which_one_it_was() -> None:
    jobs = [
        JobView("build", State.FAILED, Reason("exit", "your script failed (exit 2)")),
        JobView("deploy", State.WAITING, needs_reason(["build"]), needs=("build",), pending=True),
        JobView("tell", State.WAITING, needs_reason(["deploy"]), needs=("deploy",), pending=True),
    ]
    result = progress(jobs)
    assert result.skipped["deploy"] == Reason("need-failed", "because build failed")
    assert result.skipped["tell"] == Reason("need-failed", "because deploy was skipped")
    assert (result.state, result.reason) == (State.FAILED, Reason("exit", "build: your script failed (exit 2)"))


def test_a_run_waits_by_the_reason_of_the_job_it_waits_for() -> None:
    offline = Reason("agent-offline", "agent prod-1 is not connected")
    jobs = [
        JobView("build", State.SUCCEEDED),
        JobView("deploy", State.WAITING, offline, needs=("build",)),
        JobView("tell", State.WAITING, needs_reason(["deploy"]), needs=("deploy",), pending=True),
    ]
    result = progress(jobs)
    assert (result.state, result.reason, result.ready) == (State.WAITING, offline, ())


def test_a_running_job_makes_a_running_run_and_a_tolerated_failure_none() -> None:
    jobs = [JobView("a", State.RUNNING), JobView("b", State.QUEUED, Reason("no-slot", "waits"))]
    assert progress(jobs).state == State.RUNNING
    jobs = [JobView("a", State.FAILED, Reason("exit", "x"), allow_failure=True), JobView("b", State.SUCCEEDED)]
    assert progress(jobs).state == State.SUCCEEDED


def test_a_job_for_failures_runs_after_one_and_is_skipped_without() -> None:
    tell = JobView("tell", State.WAITING, needs_reason(["build"]), needs=("build",), when="failure", pending=True)
    assert progress([JobView("build", State.FAILED, Reason("exit", "x")), tell]).ready == ("tell",)
    after = progress([JobView("build", State.SUCCEEDED), tell])
    assert after.skipped["tell"].code == "condition"
    assert after.state == State.SUCCEEDED


def test_a_plan_without_jobs_has_nothing_to_fail() -> None:
    assert progress([]).state == State.SUCCEEDED
