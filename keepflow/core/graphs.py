"""A graph of jobs: what its stages and edges mean as plain needs, in which order it runs, and what is wrong with it.

- A **stage** begins when all jobs of the stage before have ended well, those that only run after a failure aside.
- `success: [b]` on a is short for `needs: [a]` on b; `failure: [h]` on a for `needs: [a], when: failure` on h.

Pure: it is told jobs as the flow file has them, and never asks for anything else.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from keepflow.core.flows import GraphJob, JobKind, PlannedJob, When
from keepflow.core.text import did_you_mean, listed, quoted


@dataclass(frozen=True, slots=True)
class Fault:
    """One mistake of a graph: the job, the place below it (`("needs", 0)`; empty = the job as such), and what it is."""

    job: str
    at: tuple[str | int, ...]
    code: str
    sentence: str


def wire(jobs: Sequence[GraphJob], stages: Sequence[str] = ()) -> tuple[PlannedJob, ...]:
    """Turn a graph without faults into planned jobs, each after all that it needs, else in the order of the file."""
    needs = _needs(jobs, stages)
    by_key = {
        one.job.key: replace(one.job, needs=needs[one.job.key], when=(one.when or _implied(one, jobs)).value)
        for one in jobs
    }
    ordered, waiting = list[PlannedJob](), dict(by_key)
    while waiting:
        key = next(key for key in waiting if not any(need in waiting for need in needs[key]))
        ordered.append(waiting.pop(key))
    return tuple(ordered)


class Wired(Protocol):
    """A job of a plan, planned or under way."""

    @property
    def key(self) -> str:
        """Its name."""

    @property
    def needs(self) -> tuple[str, ...]:
        """The jobs that it needs; they stand before it."""


def levels(jobs: Sequence[Wired]) -> dict[str, int]:
    """Return for each job of a plan the level that it stands on: those of one level may all run at once."""
    found: dict[str, int] = {}
    for job in jobs:
        found[job.key] = 1 + max((found[need] for need in job.needs), default=0)
    return found


def before(job: PlannedJob, jobs: Sequence[PlannedJob]) -> set[str]:
    """Return the keys of all jobs that a job of a plan comes after, directly or not."""
    needs = {other.key: other.needs for other in jobs}
    seen, todo = set[str](), list(job.needs)
    while todo:
        key = todo.pop()
        if key not in seen:
            seen.add(key)
            todo += needs[key]
    return seen


def reason(job: PlannedJob) -> str:
    """Say in words when a planned job runs, and why not before."""
    if not job.needs:
        return "starts at once: it needs no other job"
    names = listed(job.needs)
    many = len(job.needs) > 1
    match When(job.when):
        case When.SUCCESS:
            return f"starts when {names} {'have' if many else 'has'} succeeded"
        case When.FAILURE:
            return f"starts when {f'one of {names}' if many else names} has failed"
        case When.ALWAYS:
            return f"starts when {names} {'have' if many else 'has'} ended, whatever came of {'them' if many else 'it'}"


def faults(jobs: Sequence[GraphJob], stages: Sequence[str] = ()) -> list[Fault]:
    """Return every mistake of a graph: unknown names, contradicting edges, circles, jobs that can never run."""
    found = [fault for one in jobs for fault in _faults_of(one, jobs, stages)]
    needs = _needs(jobs, stages)
    circles = list(_circles(needs))
    found += [Fault(circle[0], (), "cycle", _circle_sentence(circle)) for circle in circles]
    return found if found else list(_unreachable(wire(jobs, stages)))


# --- what the wiring means -------------------------------------------------------------------------------------------


def _needs(jobs: Sequence[GraphJob], stages: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return what every job needs, by name, by edge and by stage; names of no job are left out."""
    keys = {one.job.key for one in jobs}
    needs = {one.job.key: dict.fromkeys(one.job.needs) for one in jobs}
    for one in jobs:
        for follower in (*one.success, *one.failure):
            needs.get(follower, {})[one.job.key] = None
        needs[one.job.key].update(dict.fromkeys(_stage_before(one, jobs, stages)))
    return {key: tuple(need for need in found if need in keys) for key, found in needs.items()}


def _stage_before(one: GraphJob, jobs: Sequence[GraphJob], stages: Sequence[str]) -> list[str]:
    """Return the jobs of the last stage before a job's own one that holds any; failure handlers hold up nobody."""
    if one.job.stage not in stages:
        return []
    for stage in reversed(stages[: stages.index(one.job.stage)]):
        found = [
            other.job.key
            for other in jobs
            if other.job.stage == stage and (other.when or _implied(other, jobs)) != When.FAILURE
        ]
        if found:
            return found
    return []


def _implied(one: GraphJob, jobs: Sequence[GraphJob]) -> When:
    """Return when a job runs that does not say it: after a failure when somebody names it for that."""
    return When.FAILURE if any(one.job.key in other.failure for other in jobs) else When.SUCCESS


# --- what may be wrong with it ---------------------------------------------------------------------------------------


def _faults_of(one: GraphJob, jobs: Sequence[GraphJob], stages: Sequence[str]) -> Iterator[Fault]:
    key, known = one.job.key, {other.job.key: other for other in jobs}
    for place, names in (("needs", one.job.needs), ("success", one.success), ("failure", one.failure)):
        for index, name in enumerate(names):
            at = (place, index)
            if name not in known:
                yield Fault(key, at, "unknown-job", f"there is no job {quoted(name)}{did_you_mean(name, known)}")
            elif name in names[:index]:
                yield Fault(key, at, "conflict", f"names {quoted(name)} twice")
            else:
                yield from _against_stages(one, known[name], at, stages)
    yield from _faults_of_stage(one, stages)
    yield from _faults_of_when(one, jobs)


def _against_stages(
    one: GraphJob, other: GraphJob, at: tuple[str | int, ...], stages: Sequence[str]
) -> Iterator[Fault]:
    first, second = (other, one) if at[0] == "needs" else (one, other)
    before, after = first.job.stage, second.job.stage
    if {before, after} <= set(stages) and stages.index(before) > stages.index(after):
        yield Fault(one.job.key, at, "wrong-stage", f"{first.job.key} is in stage {before}, which comes after {after}")


def _faults_of_stage(one: GraphJob, stages: Sequence[str]) -> Iterator[Fault]:
    stage = one.job.stage
    if stage and not stages:
        yield Fault(one.job.key, ("stage",), "unknown-stage", "the flow names no 'stages'")
    elif stage and stage not in stages:
        sentence = f"there is no stage {quoted(stage)}{did_you_mean(stage, stages)}"
        yield Fault(one.job.key, ("stage",), "unknown-stage", sentence)
    elif stages and not stage:
        yield Fault(one.job.key, (), "missing", f"the flow has stages, so say one: {', '.join(stages)}")


def _faults_of_when(one: GraphJob, jobs: Sequence[GraphJob]) -> Iterator[Fault]:
    key, when = one.job.key, one.when
    after_success = [other.job.key for other in jobs if key in other.success]
    after_failure = [other.job.key for other in jobs if key in other.failure]
    others = [*after_success, *one.job.needs]
    if after_failure and when == When.SUCCESS:
        sentence = f"{listed(after_failure)} names it under 'failure', so 'when: success' contradicts that"
        yield Fault(key, ("when",), "conflict", sentence)
    elif after_success and when == When.FAILURE:
        sentence = f"{listed(after_success)} names it under 'success', so 'when: failure' contradicts that"
        yield Fault(key, ("when",), "conflict", sentence)
    elif after_failure and others and when is None:
        sentence = (
            f"it runs after a failure of {listed(after_failure)} and needs {listed(others)}, too; "
            "say what is meant: 'when: failure' (one of them failed) or 'when: always' (all of them ended)"
        )
        yield Fault(key, (), "needs-choice", sentence)


def _circles(needs: Mapping[str, Collection[str]]) -> Iterator[list[str]]:
    """Return circles that have no job in common, until without their jobs there is none."""
    waiting = dict(needs)
    while waiting:
        free = [key for key in waiting if not any(need in waiting for need in waiting[key])]
        if not free:
            walked = [next(iter(waiting))]
            while (following := next(need for need in waiting[walked[-1]] if need in waiting)) not in walked:
                walked.append(following)
            free = walked[walked.index(following) :]
            first = min(free, key=list(needs).index)
            yield [*free[free.index(first) :], *free[: free.index(first)]]
        for key in free:
            del waiting[key]


def _circle_sentence(circle: Sequence[str]) -> str:
    if len(circle) == 1:
        return "it needs itself"
    links = [f"{key} needs {need}" for key, need in zip(circle, [*circle[1:], circle[0]], strict=True)]
    return f"none of these could ever start: {', '.join(links)}"


def _unreachable(jobs: Sequence[PlannedJob]) -> Iterator[Fault]:
    ran: dict[str, _Conditions] = {}
    by_key = {job.key: job for job in jobs}
    for job in jobs:
        ran[job.key] = _conditions(job, ran, by_key)
        if job.when != When.SUCCESS and not job.needs:
            sentence = f"'when: {job.when}' says nothing without jobs before it; name them under 'needs'"
            yield Fault(job.key, ("when",), "unreachable", sentence)
        elif contradiction := ran[job.key].contradiction:
            handler, causes = contradiction
            what = "it" if handler == job.key else handler
            sentence = (
                f"it can never run: {what} runs only after a failure of {listed(causes)}, which must have succeeded"
            )
            yield Fault(job.key, (), "unreachable", sentence)
        elif job.kind == JobKind.DEPLOY and all(by_key[key].kind != JobKind.SCRIPT for key in before(job, jobs)):
            yield Fault(
                job.key, (), "unreachable", "nothing is built before this deploy, so there is nothing to deploy"
            )


@dataclass(frozen=True, slots=True)
class _Conditions:
    """What holds when a job has run: jobs that succeeded, and groups of which one failed, by the job that asked."""

    succeeded: frozenset[str] = frozenset()
    failed: frozenset[tuple[str, tuple[str, ...]]] = frozenset()

    @property
    def contradiction(self) -> tuple[str, tuple[str, ...]] | None:
        """Return a job whose causes to run cannot have failed, with them."""
        return next((asked for asked in sorted(self.failed) if self.succeeded.issuperset(asked[1])), None)


def _conditions(job: PlannedJob, ran: Mapping[str, _Conditions], jobs: Mapping[str, PlannedJob]) -> _Conditions:
    if job.when == When.FAILURE:
        return _Conditions(failed=frozenset({(job.key, job.needs)}))
    if job.when == When.ALWAYS:
        return _Conditions()
    strict = frozenset(need for need in job.needs if not jobs[need].allow_failure)
    return _Conditions(
        strict.union(*(ran[need].succeeded for need in job.needs)),
        frozenset[tuple[str, tuple[str, ...]]]().union(*(ran[need].failed for need in job.needs)),
    )
