"""Running a run again: which of its jobs do their work anew, and which ones count as they ended.

A run that has ended never changes: again is a new run of the same commit, with a number of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from keepflow.core import sharing
from keepflow.core.flows import Plan, PlannedJob
from keepflow.core.states import State


def unspread(plan: Plan) -> Plan:
    """Return a plan as the flow file says it: one job per deploy, however many hosts it went to."""
    became = {job.key: job.group or job.key for job in plan.jobs}
    jobs: dict[str, PlannedJob] = {}
    for job in plan.jobs:
        needs = tuple(dict.fromkeys(became[need] for need in job.needs))
        jobs.setdefault(became[job.key], replace(job, key=became[job.key], needs=needs, host="", group=""))
    return replace(plan, jobs=tuple(jobs.values()))


def anew(jobs: Sequence[PlannedJob], succeeded: Mapping[str, bool], first: str | None) -> set[str]:
    """Return the jobs of an unspread plan that work anew: `first` and what comes after it, and what did not succeed.

    Without `first` that is what did not succeed and what comes after that. Files go with the run they were made in: a
    script job that works anew takes the ones with it that it goes on from.
    """
    needs = {job.key: job.needs for job in jobs}
    found = {key for key in needs if not succeeded.get(key, False)} | ({first} if first else set())
    for job in jobs:  # in the order of the plan: needs come before
        if found & set(job.needs):
            found.add(job.key)
    bases = sharing.bases(jobs)
    waiting = [key for key in found if key in bases]
    while waiting:
        for base in bases[waiting.pop()]:
            if base not in found:
                found.add(base)
                waiting.append(base)
    return found


def succeeded(plan: Plan, states: Mapping[str, State]) -> dict[str, bool]:
    """Say of every job of an unspread plan whether it succeeded, a deploy on all of its hosts."""
    found: dict[str, bool] = {}
    for job in plan.jobs:
        key = job.group or job.key
        found[key] = found.get(key, True) and states.get(job.key) == State.SUCCEEDED
    return found
