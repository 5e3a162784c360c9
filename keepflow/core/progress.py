"""How a run moves on: which jobs may start, which never will, and what all of that makes of the run.

Pure and total: for any states of the jobs there is an answer, and a run whose jobs have all ended has ended. The graph
of needs has no cycles (the planner makes none, the flow file's check refuses them).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from keepflow.core.flows import When
from keepflow.core.states import FINAL, Reason, State
from keepflow.core.text import listed

#: Reason code of a job that waits for other jobs of its run.
NEEDS = "needs"
NO_REASON = Reason("", "")


@dataclass(frozen=True, slots=True)
class JobView:
    """One job as far as progress is concerned; `pending` says that nobody has started or released it yet."""

    key: str
    state: State
    reason: Reason = NO_REASON
    needs: tuple[str, ...] = ()
    when: str = When.SUCCESS
    allow_failure: bool = False
    pending: bool = False


@dataclass(frozen=True, slots=True)
class Progress:
    """What follows from the jobs' states: jobs that may start, jobs to be skipped and why, and the run's own state."""

    ready: tuple[str, ...]
    skipped: dict[str, Reason]
    state: State
    reason: Reason


def progress(jobs: Sequence[JobView]) -> Progress:
    """Work out the next moves of a run; `jobs` come in the order of the plan."""
    known = {job.key: job for job in jobs}
    ready: list[str] = []
    skipped: dict[str, Reason] = {}
    waiting = [job for job in jobs if job.pending]
    moved = True
    while moved:  # a skipped job may decide the jobs behind it, wherever they stand in the plan
        moved = False
        for job in list(waiting):
            verdict = _verdict(job, known)
            if verdict is None:
                continue
            waiting.remove(job)
            moved = True
            if verdict is _READY:
                ready.append(job.key)
                known[job.key] = replace(job, state=State.QUEUED)
            else:
                skipped[job.key] = verdict
                known[job.key] = replace(job, state=State.SKIPPED, reason=verdict)
    order = list(known)
    state, reason = _of_run(list(known.values()))
    return Progress(tuple(sorted(ready, key=order.index)), skipped, state, reason)


def needs_reason(needs: Sequence[str]) -> Reason:
    """Say why a job waits for others."""
    return Reason(NEEDS, f"waits for {listed(needs)}" if needs else "waits for its run to start")


_READY = Reason("ready", "")
#: Reason codes of skipped jobs: something before them failed, or what they are for has not come.
NEED_FAILED, CONDITION = "need-failed", "condition"


def _verdict(job: JobView, known: Mapping[str, JobView]) -> Reason | None:
    """Return `_READY`, the reason why the job is skipped, or None when that cannot be said yet."""
    needed = [known[key] for key in job.needs if key in known]
    if job.when == When.SUCCESS and (bad := [need for need in needed if _stops(need)]):
        code = NEED_FAILED if any(map(_failed, bad)) else CONDITION
        return Reason(code, f"because {_ended(bad)}")
    if any(need.state not in FINAL for need in needed):
        return None
    if job.when == When.FAILURE and not any(map(_failed, needed)):
        return Reason(CONDITION, "it only runs after a failure, and nothing before it failed")
    return _READY


def _stops(need: JobView) -> bool:
    """Say whether the jobs behind this one do not run any more."""
    tolerated = need.allow_failure and need.state == State.FAILED
    return need.state in FINAL and need.state != State.SUCCEEDED and not tolerated


def _failed(need: JobView) -> bool:
    """Say whether a handler of this job's failure has something to handle: also of one that may fail."""
    if need.state == State.SKIPPED:
        return need.reason.code == NEED_FAILED
    return need.state in FINAL and need.state != State.SUCCEEDED


def _ended(needs: Sequence[JobView]) -> str:
    words = {State.FAILED: "failed", State.LOST: "was lost", State.SKIPPED: "was skipped"}
    return listed([f"{need.key} {words.get(need.state, f'was {need.state.value}')}" for need in needs])


#: What makes a run of jobs that have all ended, worst first.
_WORST_FIRST = (State.LOST, State.FAILED, State.CANCELLED, State.SUPERSEDED)
#: What a run that goes on is, by its most lively job.
_LIVELIEST_FIRST = (State.RUNNING, State.QUEUED, State.WAITING)
#: Reason code of a run that succeeded although a job failed that may.
TOLERATED = "tolerated"


def _of_run(jobs: Sequence[JobView]) -> tuple[State, Reason]:
    """Say what a run is: of its live jobs the most lively one, else of its ended ones the worst.

    A job that may fail counts as one that succeeded. Skipped jobs count only when all were skipped.
    """
    live = [job for job in jobs if job.state not in FINAL]
    if live:
        return _of_live_run(live)
    tolerated = [job.key for job in jobs if job.allow_failure and job.state == State.FAILED]
    for state in _WORST_FIRST:
        for job in jobs:
            if job.state == state and job.key not in tolerated:
                return state, Reason(job.reason.code, f"{job.key}: {job.reason.sentence or state.value}")
    if tolerated:
        return State.SUCCEEDED, Reason(TOLERATED, f"{listed(tolerated)} failed, and may (allow_failure)")
    if all(job.state == State.SKIPPED for job in jobs) and jobs:
        return State.SKIPPED, Reason(jobs[0].reason.code, f"{jobs[0].key}: {jobs[0].reason.sentence or 'skipped'}")
    return State.SUCCEEDED, NO_REASON  # a plan without jobs has nothing to fail


def _of_live_run(live: Sequence[JobView]) -> tuple[State, Reason]:
    for state in _LIVELIEST_FIRST:
        for job in live:
            if job.state == state and not (state == State.WAITING and job.pending):
                return state, NO_REASON if state == State.RUNNING else job.reason
    return State.WAITING, live[0].reason
