"""How a run moves on: which jobs may start, which never will, and what all of that makes of the run.

Pure and total: for any states of the jobs there is an answer, and a run whose jobs have all ended has ended. The graph
of needs has no cycles (the planner makes none, the flow file's check refuses them).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from keepflow.core.states import FINAL, Reason, State

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
    when: str = "success"  #: success | failure | always
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
    states = {job.key: job.state for job in jobs}
    tolerated = {job.key for job in jobs if job.allow_failure}
    ready: list[str] = []
    skipped: dict[str, Reason] = {}
    waiting = [job for job in jobs if job.pending]
    moved = True
    while moved:  # a skipped job may decide the jobs behind it, wherever they stand in the plan
        moved = False
        for job in list(waiting):
            verdict = _verdict(job, states, tolerated)
            if verdict is None:
                continue
            waiting.remove(job)
            moved = True
            if verdict is _READY:
                ready.append(job.key)
                states[job.key] = State.QUEUED
            else:
                skipped[job.key] = verdict
                states[job.key] = State.SKIPPED
    order = [job.key for job in jobs]
    state, reason = _of_run(jobs, states, skipped)
    return Progress(tuple(sorted(ready, key=order.index)), skipped, state, reason)


def needs_reason(needs: Sequence[str]) -> Reason:
    """Say why a job waits for others."""
    return Reason(NEEDS, f"waits for {_names(needs)}" if needs else "waits for its run to start")


_READY = Reason("ready", "")


def _verdict(job: JobView, states: Mapping[str, State], tolerated: set[str]) -> Reason | None:
    """Return `_READY`, the reason why the job is skipped, or None when that cannot be said yet."""
    needed = {key: states[key] for key in job.needs if key in states}
    bad = [key for key, state in needed.items() if _is_bad(key, state, tolerated)]
    open_ones = [key for key, state in needed.items() if state not in FINAL]
    if job.when == "success":
        if bad:
            return Reason("need-failed", f"skipped, because {_ended(bad, states)}")
        return None if open_ones else _READY
    if open_ones:
        return None
    if job.when == "failure" and not bad:
        return Reason("condition", "skipped: it only runs after a failure, and nothing before it failed")
    return _READY


def _is_bad(key: str, state: State, tolerated: set[str]) -> bool:
    if state == State.FAILED and key in tolerated:
        return False
    return state in FINAL and state != State.SUCCEEDED


def _ended(keys: Sequence[str], states: Mapping[str, State]) -> str:
    words = {State.FAILED: "failed", State.LOST: "was lost", State.SKIPPED: "was skipped"}
    return " and ".join(f"{key} {words.get(states[key], f'was {states[key].value}')}" for key in keys)


def _names(keys: Sequence[str]) -> str:
    return keys[0] if len(keys) == 1 else f"{', '.join(keys[:-1])} and {keys[-1]}"


#: What makes a run of jobs that have all ended, worst first.
_WORST_FIRST = (State.LOST, State.FAILED, State.CANCELLED, State.SUPERSEDED)
#: What a run that goes on is, by its most lively job.
_LIVELIEST_FIRST = (State.RUNNING, State.QUEUED, State.WAITING)


def _of_run(
    jobs: Sequence[JobView], states: Mapping[str, State], skipped: Mapping[str, Reason]
) -> tuple[State, Reason]:
    live = [job for job in jobs if states[job.key] not in FINAL]
    if live:
        return _of_live_run(live, states)
    for state in _WORST_FIRST:
        for job in jobs:
            if states[job.key] == state and not (job.allow_failure and state == State.FAILED):
                return state, Reason(job.reason.code, f"{job.key}: {job.reason.sentence or state.value}")
    if any(state == State.SUCCEEDED or state == State.FAILED for state in states.values()):
        return State.SUCCEEDED, NO_REASON
    for job in jobs:
        reason = skipped.get(job.key, job.reason)
        return State.SKIPPED, Reason(reason.code, f"{job.key}: {reason.sentence or 'skipped'}")
    return State.SUCCEEDED, NO_REASON  # a plan without jobs has nothing to fail


def _of_live_run(live: Sequence[JobView], states: Mapping[str, State]) -> tuple[State, Reason]:
    for state in _LIVELIEST_FIRST:
        for job in live:
            if states[job.key] == state and not (state == State.WAITING and job.pending):
                return state, NO_REASON if state == State.RUNNING else job.reason
    first = live[0]
    return State.WAITING, first.reason
