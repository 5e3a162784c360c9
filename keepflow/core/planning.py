"""From an event to flows and from a flow to jobs: what starts and why, what does not and why not, in what order."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from keepflow.core import deploys, graphs
from keepflow.core.events import Event, EventKind
from keepflow.core.flows import Flow, FlowFile, JobKind, Plan, PlannedJob, Step, Trigger
from keepflow.core.patterns import Verdict, decide
from keepflow.core.states import Reason
from keepflow.core.text import one_line, quoted

_SKIP = re.compile(r"\[(skip ci|ci skip|no ci|skip-ci|ci-skip)\]", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Match:
    """A flow that an event starts, and the sentence that says why."""

    flow: str
    why: str


@dataclass(frozen=True, slots=True)
class Decision:
    """What an event comes to: flows that start, and a sentence for every flow that does not.

    `reason` is set when nothing starts: `no-match`, `no-flow-file` or `broken-flow-file`. The last two must become a
    visible failed run: never a silent green.
    """

    matches: tuple[Match, ...] = ()
    why_not: dict[str, str] = field(default_factory=dict)
    reason: Reason | None = None

    @property
    def failed(self) -> bool:
        """Whether this decision is a fault of the repository that people must see."""
        return self.reason is not None and self.reason.code != "no-match"


def match(event: Event, flow_file: FlowFile) -> Decision:
    """Send an event to the flows it matches; every flow gets its sentence."""
    matches: list[Match] = []
    why_not: dict[str, str] = {}
    for flow in flow_file.flows.values():
        starts, why = _answer(event, flow.on)
        if starts:
            matches.append(Match(flow.name, why))
        else:
            why_not[flow.name] = why
    reason = None if matches else Reason("no-match", f"no flow starts for {_happening(event)}")
    return Decision(tuple(matches), why_not, reason)


def no_flow_file(file: str, sha: str) -> Decision:
    """Return the decision about a commit that has no flow file."""
    return Decision(reason=Reason("no-flow-file", f"there is no {one_line(file)} at commit {one_line(sha[:12])}"))


def broken_flow_file(problems: Sequence[str]) -> Decision:
    """Return the decision about a commit whose flow file cannot be used; `problems` are its lines, first one shown."""
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    first = one_line(problems[0], 400) if problems else "the flow file cannot be read"
    return Decision(reason=Reason("broken-flow-file", first + more))


def skip_word(message: str) -> str | None:
    """Return the word that asks to skip (`[skip ci]` and its kin, any case), or None."""
    found = _SKIP.search(message)
    return found[0].lower() if found else None


def _answer(event: Event, on: Trigger) -> tuple[bool, str]:
    match event.kind:
        case EventKind.PUSH:
            return _by_name("branch", event.branch, "push", on.push)
        case EventKind.TAG:
            return _by_name("tag", event.tag, "tag", on.tag)
        case EventKind.PULL_REQUEST:
            return _by_switch("pull_request", on.pull_request)
        case EventKind.MANUAL:
            return _by_switch("manual", on.manual)
        case EventKind.SCHEDULE:
            return _by_switch("schedule", bool(on.cron))


def _by_name(noun: str, name: str | None, key: str, patterns: tuple[str, ...]) -> tuple[bool, str]:
    if name is None:
        return False, f"the {key} names no {noun}"
    if not patterns:
        return False, f"its 'on' does not name {key}"
    verdict: Verdict = decide(patterns, name)
    if verdict.by is None:
        return False, f"{noun} {quoted(name)} fits none of {key}: {', '.join(patterns)}"
    if not verdict.selected:
        return False, f"{noun} {quoted(name)} is taken out by {key}: {verdict.by}"
    return True, f"{noun} {quoted(name)} fits {key}: {verdict.by}"


def _by_switch(key: str, on: bool) -> tuple[bool, str]:
    return (True, f"its 'on' names {key}") if on else (False, f"its 'on' does not name {key}")


def _happening(event: Event) -> str:
    if event.branch is not None and event.kind == EventKind.PUSH:
        return f"a push to branch {quoted(event.branch)}"
    if event.tag is not None and event.kind == EventKind.TAG:
        return f"tag {quoted(event.tag)}"
    return f"{event.kind.value.replace('_', ' ')} at {quoted(event.ref)}"


def plan(flow: Flow, flow_file: FlowFile) -> Plan:
    """Turn a flow into jobs, each after all that it needs."""
    jobs = graphs.wire(flow.jobs, flow.stages) if flow.jobs else _in_line(flow)
    return Plan(flow.name, jobs, flow.concurrency, flow_file.image, flow_file.container)


def _in_line(flow: Flow) -> tuple[PlannedJob, ...]:
    """Return the jobs of `steps:`, one after the other: neighbouring steps are one job, all else is one of its own."""
    jobs: list[PlannedJob] = []
    steps: list[Step] = []

    def close_steps() -> None:
        if steps:
            jobs.append(PlannedJob(_free_key("steps", jobs), JobKind.SCRIPT, _needs(jobs), tuple(steps)))
            steps.clear()

    for part in flow.parts:
        if part.step is not None:
            steps.append(part.step)
            continue
        close_steps()
        key = f"deploy-{part.target}" if part.kind == JobKind.DEPLOY else part.kind.value
        jobs.append(PlannedJob(_free_key(key, jobs), part.kind, _needs(jobs), target=part.target))
    close_steps()
    return tuple(jobs)


@dataclass(frozen=True, slots=True)
class Hosts:
    """Where the deploys to one environment go: its agents in order, and how many of them at once."""

    agents: tuple[str, ...]
    at_once: int = 1


def spread(plan: Plan, places: Mapping[str, Hosts]) -> Plan:
    """Make every deploy one job per host of its environment, in batches: one starts after the one before succeeded.

    What needed the deploy needs all of its hosts. A deploy that names its host stays as it is; one to an environment
    that is not in `places` stays one job without a host.
    """
    became: dict[str, tuple[str, ...]] = {}
    jobs: list[PlannedJob] = []
    for job in plan.jobs:
        needs = tuple(key for need in job.needs for key in became.get(need, (need,)))
        hosts = places.get(job.target) if job.kind == JobKind.DEPLOY and not job.host else None
        made = _per_host(replace(job, needs=needs), hosts) if hosts else [replace(job, needs=needs)]
        became[job.key] = tuple(one.key for one in made)
        jobs += made
    return replace(plan, jobs=tuple(jobs))


def _per_host(job: PlannedJob, hosts: Hosts) -> list[PlannedJob]:
    made: list[PlannedJob] = []
    first = replace(job, group=job.key)
    for start in range(0, len(hosts.agents), hosts.at_once):
        before = tuple(one.key for one in made[-hosts.at_once :])
        like = replace(first, needs=before, when="success") if before else first
        for agent in hosts.agents[start : start + hosts.at_once]:
            key = job.key if len(hosts.agents) == 1 else f"{job.key}-{agent}"
            made.append(replace(like, key=key, host=agent))
    return made


def _needs(jobs: list[PlannedJob]) -> tuple[str, ...]:
    return (jobs[-1].key,) if jobs else ()


def _free_key(wanted: str, jobs: list[PlannedJob]) -> str:
    taken = {job.key for job in jobs}
    key, number = wanted, 1
    while key in taken:
        number += 1
        key = f"{wanted}-{number}"
    return key


def plan_to_json(plan: Plan) -> dict[str, Any]:
    """Return a plan as plain data for the store."""
    return {**asdict(plan), "container": deploys.to_json(plan.container) if plan.container else None}


def plan_from_json(data: dict[str, Any]) -> Plan:
    """Read a plan back, equal to what was stored; raises KeyError, TypeError or ValueError when it is none."""
    return Plan(
        flow=data["flow"],
        jobs=tuple(_job_from_json(job) for job in data["jobs"]),
        concurrency=data["concurrency"],
        image=data["image"],
        container=deploys.from_json(data["container"]) if data["container"] else None,
    )


def _job_from_json(data: dict[str, Any]) -> PlannedJob:
    plain = {
        "kind": JobKind(data["kind"]),
        "needs": tuple(data["needs"]),
        "steps": tuple(Step(**step) for step in data["steps"]),
    }
    return PlannedJob(**{**data, **plain})
