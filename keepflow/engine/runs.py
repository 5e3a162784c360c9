"""Runs come into being, meet older ones of their flow, and are ended before their time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from sqlalchemy import Connection

from keepflow.core import priority
from keepflow.core.events import Event, EventKind, Trust
from keepflow.core.flows import JobKind, Plan, PlannedJob
from keepflow.core.patterns import branch_allowed
from keepflow.core.planning import Hosts, plan_to_json, spread
from keepflow.core.progress import NO_REASON, needs_reason
from keepflow.core.states import FINAL, LIVE, Phase, Reason, State
from keepflow.engine import deploying, dispatch, joborder, sending
from keepflow.engine.context import Master
from keepflow.store import deployments, environments, events, jobs, lines, projects, runs
from keepflow.store.jobs import Job
from keepflow.store.lines import Line
from keepflow.store.projects import Project
from keepflow.store.runs import NewRun, Run
from keepflow.store.writer import Tx
from keepflow.wire.messages import StopJob

#: What became of a request to end a run.
CANCELLED, STOPPING, TOO_LATE, ENDED = "cancelled", "stopping", "too-late", "ended"


def trust_of(conn: Connection, project: Project, event: Event) -> Trust:
    """Say how far the code of an event is trusted: its branch reaches some environment, or it does not."""
    if event.fork:
        return joborder.FORK
    if event.kind == EventKind.PULL_REQUEST or event.branch is None:
        return joborder.OTHER
    reached = any(branch_allowed(found.branches, event.branch) for found in environments.of_project(conn, project.id))
    return joborder.PROTECTED if reached else joborder.OTHER


def add(
    tx: Tx,
    master: Master,
    project: Project,
    event: Event,
    plan: Plan,
    *,
    trust: Trust,
    why: str,
    now: int,
    delivery_id: int | None = None,
    rerun_of: int | None = None,
) -> int:
    """Add a run with its jobs and end the older ones it takes the place of; `dispatch.advance` then starts it.

    A deploy becomes one job per host that its environment has now. A run that does another one again is older code and
    takes nobody's place.
    """
    found = environments.of_project(tx.conn, project.id)
    plan = spread(plan, {place.name: Hosts(place.agents, place.max_unavailable) for place in found})
    queued = Reason("new", "has just been made")
    run = _insert(tx, master, project, event, plan, State.QUEUED, queued, why, trust, delivery_id, now, rerun_of)
    for ordinal, planned in enumerate(plan.jobs):
        rank = priority.rank(plan.priority, now)
        jobs.add(tx.conn, run.id, ordinal, planned, asdict(planned), needs_reason(planned.needs), now, rank)
    takes_places = trust == joborder.FORK or plan.concurrency in (dispatch.LATEST, dispatch.CANCEL)
    if takes_places and rerun_of is None:
        _supersede_older(tx, master, project, run, now)
    return run.id


def add_ended(
    tx: Tx,
    master: Master,
    project: Project,
    event: Event,
    flow: str,
    state: State,
    reason: Reason,
    *,
    why: str,
    now: int,
    delivery_id: int | None = None,
    superseded_by: int | None = None,
    log: str = "",
) -> int:
    """Add a run that is over before it began, so that people see it and why; `log` becomes its log."""
    trust = trust_of(tx.conn, project, event)
    run = _insert(tx, master, project, event, Plan(flow, ()), state, reason, why, trust, delivery_id, now)
    if superseded_by is not None:
        runs.point_to_newer(tx.conn, [run.id], superseded_by)
    if log:
        planned = PlannedJob("flow-file", JobKind.SCRIPT)
        job_id = jobs.add(tx.conn, run.id, 0, planned, asdict(planned), NO_REASON, now)
        attempt = jobs.add_attempt(tx.conn, job_id, None, now)
        jobs.finish_attempt(tx.conn, attempt.fence, state, reason, now, log_bytes=len(log.encode()))
        jobs.finish(tx.conn, job_id, state, reason, now)
        tx.after_commit(partial(master.logs.put, attempt.log_path, log))
    return run.id


@dataclass(frozen=True, slots=True)
class Superseded:
    """A run that is over before it began, because run number `by` is made in the same transaction."""

    event: Event
    flow: str
    reason: Reason
    why: str
    delivery_id: int
    by: int


def add_superseded(tx: Tx, master: Master, project: Project, news: Sequence[Superseded], now: int) -> list[int]:
    """Add runs as `add_ended` does with one, all at once, and return their row ids."""
    trusts = {
        event.ref: trust_of(tx.conn, project, event) for event in {new.event.ref: new.event for new in news}.values()
    }
    plans = {flow: plan_to_json(Plan(flow, ())) for flow in {new.flow for new in news}}
    first = projects.next_number(tx.conn, project.id, len(news))
    rows = [
        NewRun(
            project.id,
            number,
            new.flow,
            new.event,
            State.SUPERSEDED,
            new.reason,
            new.why,
            plans[new.flow],
            trusts[new.event.ref],
            new.delivery_id,
        )
        for number, new in enumerate(news, first)
    ]
    ids = runs.add_all(tx.conn, now, rows)
    told = [
        events.Told(project.id, run_id, _created(row), row.event.actor) for row, run_id in zip(rows, ids, strict=True)
    ]
    events.add_all(tx, now, "run-created", told)
    tx.after_commit(partial(master.wakes.fire, "events"))
    return ids


def stop(tx: Tx, master: Master, run: Run, state: State, reason: Reason, now: int) -> str:
    """End what can be ended of a run and say what became of it.

    CANCELLED: nothing of it goes on; STOPPING: an agent was told to stop its script job; TOO_LATE: a deployment was
    sent and goes on by itself, nothing after it will start; ENDED: it was over before.
    """
    if run.state in FINAL:
        return ENDED
    word = CANCELLED
    for job in jobs.of_run(tx.conn, run.id):
        if job.state not in LIVE:
            continue
        if job.kind == JobKind.DEPLOY and not deploying.withdraw(tx.conn, job, reason, now):
            word = TOO_LATE
            continue
        if job.kind == JobKind.SCRIPT and job.state == State.RUNNING:
            word = STOPPING if word == CANCELLED else word
            stop_attempts(tx, master, job, reason, now)
        jobs.finish(tx.conn, job.id, state, reason, now)
    if word != TOO_LATE and runs.move(tx.conn, run.id, state, reason, now):
        dispatch.announce(tx, master, run, state, reason, now)
    return word


def stop_attempts(tx: Tx, master: Master, job: Job, reason: Reason, now: int) -> None:
    """Tell the agents that hold a script job to stop it; the attempt ends when its agent says so."""
    for attempt in jobs.attempts_of(tx.conn, job.id):
        if attempt.state == State.RUNNING and attempt.agent_id is not None:
            body = StopJob(fence=attempt.fence, code=reason.code, sentence=reason.sentence)
            sending.send(tx, master, attempt.agent_id, body, now)


def _insert(
    tx: Tx,
    master: Master,
    project: Project,
    event: Event,
    plan: Plan,
    state: State,
    reason: Reason,
    why: str,
    trust: Trust,
    delivery_id: int | None,
    now: int,
    rerun_of: int | None = None,
) -> Run:
    number = projects.next_number(tx.conn, project.id)
    frozen = plan_to_json(plan)
    new = NewRun(project.id, number, plan.flow, event, state, reason, why, frozen, trust, delivery_id, rerun_of)
    run = runs.add(tx.conn, now, new)
    events.add(tx, now, "run-created", actor=event.actor, project_id=project.id, run_id=run.id, data=_created(new))
    tx.after_commit(partial(master.wakes.fire, "events"))
    return run


def _created(new: NewRun) -> dict[str, Any]:
    """Return what the event of a new run says."""
    return {
        "number": new.number,
        "flow": new.flow,
        "ref": new.event.ref,
        "sha": new.event.sha,
        "why": new.why,
        "state": new.state.value,
        "reason": new.reason.sentence,
    }


def _supersede_older(tx: Tx, master: Master, project: Project, run: Run, now: int) -> None:
    # The flow file of a fork may name any group, and nobody has read it yet: it reaches its own ref and no other.
    concurrency, group = run.plan["concurrency"], "" if run.trust == joborder.FORK else run.group
    where = f"in group {group}" if group else f"on {run.ref}"
    reason = Reason("superseded", f"superseded by {project.name}#{run.number}, a newer run of {run.flow} {where}")
    line = Line(project.id, run.flow, run.ref, group)
    for older in lines.members(tx.conn, line):
        if older.id >= run.id or older.flow != run.flow or older.plan["concurrency"] == dispatch.PARALLEL:
            continue
        drops = concurrency == dispatch.LATEST and _can_be_dropped(tx.conn, older)
        if concurrency == dispatch.CANCEL or drops or dispatch.waits_for_approval(older):
            stop(tx, master, older, State.SUPERSEDED, reason, now)
            runs.point_to_newer(tx.conn, [older.id], run.id)
            dispatch.ended(tx, master, older, now)


def _can_be_dropped(conn: Connection, run: Run) -> bool:
    """Say whether nobody works on a run now: no script runs, and no deployment of it was sent to an agent."""
    for job in jobs.of_run(conn, run.id):
        if job.state == State.RUNNING:
            return False
        deployment = deployments.of_job(conn, job.id) if job.kind == JobKind.DEPLOY and job.state in LIVE else None
        if deployment is not None and deployment.phase != Phase.QUEUED:
            return False
    return True
