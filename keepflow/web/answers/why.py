"""Why a run is as it is: what it waits for and who is in the way, or how it ended; all of it in words."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from sqlalchemy import Connection

from keepflow.core.flows import JobKind
from keepflow.core.reasons import meaning
from keepflow.core.states import FINAL, State
from keepflow.engine import assigning, dispatch
from keepflow.store import agents, jobs, lines, runs
from keepflow.store.projects import Project
from keepflow.store.runs import Run
from keepflow.wire import api

_NAMED = 5  #: runs in front that are named


def of_run(conn: Connection, project: Project, number: int) -> api.Why | None:
    """Return why a run is as it is, or None when there is no such run."""
    run = runs.by_number(conn, project.id, number)
    if run is None:
        return None
    found = jobs.of_run(conn, run.id)
    means = meaning(run.reason_code)
    return api.Why(
        project=project.name,
        number=run.number,
        started=run.why,
        state=run.state,
        reason_code=run.reason_code,
        reason=run.reason,
        meaning=means.sentence,
        help=means.help,
        ahead=[] if run.state in FINAL else list(_ahead(conn, project, run)),
        agents=[] if run.state in FINAL else list(_agents(conn, found)),
        jobs=[_job(job) for job in found if job.reason],
    )


def _job(job: jobs.Job) -> api.WhyJob:
    means = meaning(job.reason_code)
    return api.WhyJob(
        key=job.key, state=job.state, code=job.reason_code, reason=job.reason, meaning=means.sentence, help=means.help
    )


def _ahead(conn: Connection, project: Project, run: Run) -> Iterator[str]:
    """Say who is in front of a run whose turn has not come."""
    if run.turn_at is not None or run.plan["concurrency"] == dispatch.PARALLEL:
        return
    line = dispatch.line_of(run)
    before = lines.waiting_before(conn, run, line)
    if not before:
        return
    many = f"{len(before)} run{'s' * (len(before) > 1)}"
    of_what = f"group {run.group}" if run.group else f"flow {run.flow}"
    yield f"behind {many} of {of_what}"
    for one in before[:_NAMED]:
        yield f"{project.name}#{one.number} {one.state.value}{f': {one.reason}' if one.reason else ''}"
    if len(before) > _NAMED:
        yield f"and {len(before) - _NAMED} more"


def _agents(conn: Connection, found: list[jobs.Job]) -> Iterator[str]:
    """Say how the agents stand that script jobs wait for."""
    codes = {job.reason_code for job in found if job.kind == JobKind.SCRIPT and job.state not in FINAL}
    if not codes & {assigning.NO_AGENT, assigning.NO_SLOT}:
        return
    holdings = jobs.holdings(conn)
    for agent in agents.every(conn):
        if "run" not in agent.capabilities or agent.revoked_at is not None:
            continue
        busy = [f"{held.project}#{held.number}" for held in holdings if held.agent_id == agent.id]
        if not agent.connected:
            since = f" since {_moment(agent.last_seen_at)}" if agent.last_seen_at else ""
            yield f"agent {agent.name} is offline{since}{f' ({agent.offline_why})' if agent.offline_why else ''}"
        elif agent.drained_by:
            yield f"agent {agent.name} is drained by {agent.drained_by}: it takes nothing new"
        elif busy:
            yield f"agent {agent.name} is busy with {', '.join(busy[:_NAMED])} ({len(busy)} of {agent.slots} slots)"
        else:
            yield f"agent {agent.name} is free"


def _moment(micros: int) -> str:
    return datetime.fromtimestamp(micros / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def waits(found: api.Why) -> bool:
    """Say whether there is more to tell of a run than its own sentence."""
    return found.state not in (State.SUCCEEDED, State.RUNNING) and bool(found.meaning or found.ahead or found.agents)
