"""What an event would start, as people read it and as programs do."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any
from zoneinfo import ZoneInfo

from keepflow.core import graphs
from keepflow.core.events import Event, EventKind
from keepflow.core.flows import Flow, FlowFile, JobKind, Plan, PlannedJob, Strategy, Trigger
from keepflow.core.matching import NOBODY_SAID, Changes, match
from keepflow.core.names import is_ref
from keepflow.core.planning import plan
from keepflow.core.text import listed, one_line, quoted
from keepflow.errors import UsageError
from keepflow.tools import cron

_COMING = 3  #: times by the clock that are shown
STOP_FIRST = "stop-first: visitors will see the maintenance page for a while"


@dataclass(frozen=True, slots=True)
class PlannedFlow:
    """One flow: whether it starts (None when no event was asked about), the sentence, and its jobs."""

    name: str
    starts: bool | None
    why: str
    plan: Plan
    next: tuple[str, ...] = ()  #: when the clock starts it, in its own zone


@dataclass(frozen=True, slots=True)
class Answer:
    """What was asked, and every flow of the file."""

    question: str
    flows: tuple[PlannedFlow, ...]


def planned(
    flow_file: FlowFile, kind: EventKind, ref: str | None, changed: tuple[str, ...] = (), now: int = 0
) -> Answer:
    """Plan every flow of a file for an event at a ref; without a ref, say for each flow what starts it.

    `changed` are the files that the event changes; none: nobody can tell. `now` in UTC microseconds is where the next
    times of flows by the clock begin.

    Raises UsageError for a ref that git could not have.
    """
    if ref is None and kind in (EventKind.PUSH, EventKind.TAG):
        every = [_flow(flow, flow_file, None, _starts_on(flow.on), now) for flow in flow_file.flows.values()]
        return Answer("every flow", tuple(every))
    full = _full_ref("HEAD" if ref is None else ref, kind)
    decision = match(Event(kind, full, "0" * 40), flow_file, Changes(changed) if changed else NOBODY_SAID)
    started = {found.flow: found.why for found in decision.matches}
    why = {**decision.why_not, **started}
    flows = [_flow(flow, flow_file, flow.name in started, why[flow.name], now) for flow in flow_file.flows.values()]
    return Answer(f"{kind.value} {one_line(full)}" if ref else kind.value, tuple(flows))


def _flow(flow: Flow, flow_file: FlowFile, starts: bool | None, why: str, now: int) -> PlannedFlow:
    return PlannedFlow(flow.name, starts, why, plan(flow, flow_file), _next(flow.on, now))


def as_text(answer: Answer) -> str:
    """Return an answer for a terminal."""
    lines = [f"{answer.question}:"]
    for flow in answer.flows:
        verb = "" if flow.starts is None else "starts: " if flow.starts else "does not start: "
        lines.append(f"  {flow.name}  {verb}{one_line(flow.why)}")
        lines += [f"    by the clock next: {', '.join(flow.next)}"] if flow.next else []
        if flow.starts is not False:
            lines += [f"    {line}" for line in _job_lines(flow.plan)]
    if not any(flow.starts is not False for flow in answer.flows):
        lines.append("  nothing starts")
    return "\n".join(lines)


def as_json(answer: Answer) -> dict[str, Any]:
    """Return an answer for a program."""
    return {
        "question": answer.question,
        "flows": [
            {
                "flow": flow.name,
                "starts": flow.starts,
                "why": flow.why,
                "next": list(flow.next),
                "concurrency": flow.plan.concurrency,
                "stop_first": _stops_first(flow.plan),
                "jobs": [
                    {
                        "key": job.key,
                        "kind": job.kind.value,
                        "level": levels[job.key],
                        "stage": job.stage,
                        "needs": list(job.needs),
                        "when": job.when,
                        "why": graphs.reason(job),
                        "allow_failure": job.allow_failure,
                        "matrix": job.matrix,
                        "target": job.target,
                        "steps": [step.name for step in job.steps],
                    }
                    for levels in [graphs.levels(flow.plan.jobs)]
                    for job in flow.plan.jobs
                ],
            }
            for flow in answer.flows
        ],
    }


def _next(on: Trigger, now: int) -> tuple[str, ...]:
    if not on.cron:
        return ()
    if cron.is_hashed(on.cron):
        return ("each project has a time of its own (H); its page shows it",)
    zone = on.tz or "UTC"
    coming = islice(cron.fires(on.cron, on.tz, "", now), _COMING)
    return tuple(f"{datetime.fromtimestamp(at / 1_000_000, ZoneInfo(zone)):%a %Y-%m-%d %H:%M} {zone}" for at in coming)


def _full_ref(ref: str, kind: EventKind) -> str:
    space = "refs/tags/" if kind == EventKind.TAG else "refs/heads/"
    full = ref if ref.startswith("refs/") else space + ref
    if not is_ref(full):
        raise UsageError(f"{quoted(ref)} is not a branch or tag that git could have", code="bad-ref")
    return full


def _starts_on(on: Trigger) -> str:
    parts = [f"{key}: {', '.join(patterns)}" for key, patterns in (("push", on.push), ("tag", on.tag)) if patterns]
    parts += [word for word, given in (("pull_request", on.pull_request), ("manual", on.manual)) if given]
    parts += [f"schedule: {on.cron} {on.tz}".rstrip()] if on.cron else []
    filters = (("paths", on.paths), ("paths_ignore", on.paths_ignore))
    parts += [f"{key}: {', '.join(patterns)}" for key, patterns in filters if patterns]
    return "on " + "; ".join(parts)


def _job_lines(plan: Plan) -> list[str]:
    """Return the jobs level by level: those of one level need nothing of each other and may run side by side."""
    lines = []
    levels = graphs.levels(plan.jobs)
    for number in sorted(set(levels.values())):
        beside = [job for job in plan.jobs if levels[job.key] == number]
        stages = listed(list(dict.fromkeys(job.stage for job in beside if job.stage)))
        head = f"level {number}{f', stage {stages}' if stages else ''}"
        lines.append(f"{head}: {listed([job.key for job in beside])}{', side by side' if len(beside) > 1 else ''}")
        for job in beside:
            lines.append(f"  {job.key}  {graphs.reason(job)}{'; it may fail' if job.allow_failure else ''}")
            lines += [f"    - {one_line(step.name)}" for step in job.steps]
            if job.kind == JobKind.DEPLOY:
                lines.append(f"    - deploys what was built to {job.target}{_warning(plan, job)}")
            if job.kind == JobKind.NOTIFY:
                lines.append(f"    - tells {one_line(job.target)} how the run stands")
    return lines


def _warning(plan: Plan, job: PlannedJob) -> str:
    return f"; {STOP_FIRST}" if job.kind == JobKind.DEPLOY and _stops_first(plan) else ""


def _stops_first(plan: Plan) -> bool:
    deploys = any(job.kind == JobKind.DEPLOY for job in plan.jobs)
    return deploys and plan.container is not None and plan.container.strategy == Strategy.STOP_FIRST
