"""Jobs, their attempts, and the steps of an attempt."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, RowMapping, and_, bindparam, func, or_, select, update

from keepflow.core.flows import JobKind, PlannedJob
from keepflow.core.progress import NEEDS, NO_REASON
from keepflow.core.queueing import Waiting
from keepflow.core.states import FINAL, Reason, State
from keepflow.store import counters
from keepflow.store.runs import may_come_from
from keepflow.store.tables import attempts, jobs, projects, runs, steps


@dataclass(frozen=True, slots=True)
class Job:
    """The part of a run that is handed out as one; `spec` is the planned job as plain data."""

    id: int
    run_id: int
    key: str
    ordinal: int
    kind: JobKind
    needs: tuple[str, ...]
    spec: dict[str, Any] = field(repr=False)
    state: State
    reason_code: str
    reason: str
    created_at: int
    started_at: int | None
    finished_at: int | None
    not_before: int | None
    rank: int
    outputs: dict[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try at a job; `fence` names it.

    `log_path` is relative to KEEPFLOW_HOME/logs; `log_bytes` is what the agent counted at the end.
    """

    id: int
    job_id: int
    n: int
    fence: int
    agent_id: int | None
    state: State
    reason_code: str
    reason: str
    exit_code: int | None
    token_hash: str | None = field(repr=False)
    log_path: str
    log_bytes: int
    created_at: int
    started_at: int | None
    finished_at: int | None


@dataclass(frozen=True, slots=True)
class Step:
    """One command of an attempt; its log lies between the agent's offsets `log_from` and `log_to`."""

    id: int
    attempt_id: int
    ordinal: int
    name: str
    state: State
    exit_code: int | None
    log_from: int
    log_to: int | None
    started_at: int
    finished_at: int | None


def _job(row: Mapping[Any, Any]) -> Job:
    return Job(**{**row, "kind": JobKind(row["kind"]), "state": State(row["state"]), "needs": tuple(row["needs"])})


def _attempt(row: RowMapping) -> Attempt:
    return Attempt(**{**row, "state": State(row["state"])})


#: Built once: these are asked many times for every report, and building costs as much as asking.
_BY_ID = select(jobs).where(jobs.c.id == bindparam("id"))
_OF_RUN = select(jobs).where(jobs.c.run_id == bindparam("run_id")).order_by(jobs.c.ordinal)
_SOME_OF_RUN = select(jobs.c.id).where(jobs.c.run_id == bindparam("run_id"), jobs.c.finished_at.is_(None)).limit(1)
_RUNNING = _SOME_OF_RUN.where(jobs.c.state == State.RUNNING.value)
_WAITING = _SOME_OF_RUN.where(jobs.c.state == State.WAITING.value, jobs.c.reason_code == bindparam("code"))


# --- jobs ------------------------------------------------------------------------------------------------------------


def add(
    conn: Connection,
    run_id: int,
    ordinal: int,
    planned: PlannedJob,
    spec: dict[str, Any],
    reason: Reason,
    now: int,
    rank: int | None = None,
) -> int:
    """Add a job in state waiting, for this reason, and return its row id; it stands in line by its rank, else now."""
    query = jobs.insert().values(
        run_id=run_id,
        key=planned.key,
        ordinal=ordinal,
        kind=planned.kind.value,
        needs=list(planned.needs),
        spec=spec,
        state=State.WAITING.value,
        reason_code=reason.code,
        reason=reason.sentence,
        created_at=now,
        rank=now if rank is None else rank,
    )
    return int(conn.execute(query.returning(jobs.c.id)).scalar_one())


def by_id(conn: Connection, job_id: int) -> Job:
    """Return a job by its row id; it must exist."""
    return _job(conn.execute(_BY_ID, {"id": job_id}).mappings().one())


def of_run(conn: Connection, run_id: int) -> list[Job]:
    """List the jobs of a run in the order of its plan."""
    return [_job(row) for row in conn.execute(_OF_RUN, {"run_id": run_id}).mappings()]


def unanswered(conn: Connection, reason_code: str, before: int) -> list[Job]:
    """List the jobs that have waited for this reason since before a moment."""
    query = select(jobs).where(
        jobs.c.finished_at.is_(None),
        jobs.c.state == State.WAITING.value,
        jobs.c.reason_code == reason_code,
        jobs.c.started_at < before,
    )
    return [_job(row) for row in conn.execute(query.order_by(jobs.c.id)).mappings()]


def any_runs(conn: Connection, run_id: int) -> bool:
    """Say whether an agent works on some job of a run."""
    return conn.execute(_RUNNING, {"run_id": run_id}).first() is not None


def any_waits(conn: Connection, run_id: int, reason_code: str) -> bool:
    """Say whether some job of a run waits for this reason."""
    return conn.execute(_WAITING, {"run_id": run_id, "code": reason_code}).first() is not None


def of_runs(conn: Connection, run_ids: Iterable[int]) -> list[Job]:
    """List the jobs of several runs, run by run."""
    query = select(jobs).where(jobs.c.run_id.in_(list(run_ids))).order_by(jobs.c.run_id, jobs.c.ordinal)
    return [_job(row) for row in conn.execute(query).mappings()]


def waiting_for_agents(conn: Connection, no_agent: str) -> list[Waiting]:
    """List the script jobs that may start now.

    Those are the queued ones and the ones that wait with the reason code `no_agent`, but none of a paused project.
    """
    ready = or_(
        jobs.c.state == State.QUEUED.value,
        and_(jobs.c.state == State.WAITING.value, jobs.c.reason_code == no_agent),
    )
    query = (
        select(jobs.c.id, runs.c.project_id, jobs.c.rank, projects.c.served)
        .join(runs, runs.c.id == jobs.c.run_id)
        .join(projects, projects.c.id == runs.c.project_id)
        .where(jobs.c.finished_at.is_(None), ready, jobs.c.kind == JobKind.SCRIPT.value)
        .where(projects.c.paused_at.is_(None))
    )
    return [Waiting(*row) for row in conn.execute(query)]


def agents_of(conn: Connection, run_id: int, keys: Sequence[str]) -> set[int]:
    """Return the agents that carried out the last attempts at some jobs of a run."""
    query = (
        select(jobs.c.key, attempts.c.agent_id)
        .join(attempts, attempts.c.job_id == jobs.c.id)
        .where(jobs.c.run_id == run_id, jobs.c.key.in_(keys), jobs.c.kind == JobKind.SCRIPT.value)
    )
    last = {row.key: row.agent_id for row in conn.execute(query.order_by(attempts.c.n))}
    return {agent_id for agent_id in last.values() if agent_id is not None}


def with_agents(conn: Connection, job_ids: Sequence[int]) -> list[tuple[Job, int | None]]:
    """Return jobs in this order, each with the agent of its run."""
    query = select(jobs, runs.c.agent_id).join(runs, runs.c.id == jobs.c.run_id).where(jobs.c.id.in_(job_ids))
    rows = {row["id"]: dict(row) for row in conn.execute(query).mappings()}
    found = [(rows[job_id].pop("agent_id"), rows[job_id]) for job_id in job_ids]
    return [(_job(row), agent_id) for agent_id, row in found]


def runs_with_waiting_deploys(conn: Connection) -> list[int]:
    """List the runs that have a deploy job waiting for something outside of their own run."""
    query = select(jobs.c.run_id).where(
        jobs.c.finished_at.is_(None),
        jobs.c.state == State.WAITING.value,
        jobs.c.kind == JobKind.DEPLOY.value,
        jobs.c.reason_code != NEEDS,
    )
    return sorted(set(conn.execute(query).scalars()))


def move(conn: Connection, job_id: int, state: State, reason: Reason, now: int | None = None) -> bool:
    """Bring a job into a state (or give the state it is in a new reason); False when that move is not legal."""
    values: dict[str, Any] = {"state": state.value, "reason_code": reason.code, "reason": reason.sentence}
    if state in FINAL:
        values["finished_at"] = now
    query = update(jobs).where(jobs.c.id == job_id, jobs.c.state.in_(may_come_from(state)))
    return conn.execute(query.values(**values)).rowcount == 1


def explain(conn: Connection, job_id: int, code: str, sentence: str) -> None:
    """Give a job a sentence without moving it."""
    conn.execute(update(jobs).where(jobs.c.id == job_id).values(reason_code=code, reason=sentence))


def tell(conn: Connection, job_id: int, outputs: Mapping[str, str]) -> None:
    """Keep the variables that a job told the jobs behind it."""
    conn.execute(update(jobs).where(jobs.c.id == job_id).values(outputs=dict(outputs)))


def wait(conn: Connection, job_id: int, reason: Reason) -> bool:
    """Let a job wait for this reason; False when it has ended."""
    return move(conn, job_id, State.WAITING, reason)


def run(conn: Connection, job_id: int, now: int) -> bool:
    """Say that an agent works on a job; False when it has ended."""
    begin(conn, job_id, now)
    return move(conn, job_id, State.RUNNING, NO_REASON)


def try_later(conn: Connection, job_id: int, reason: Reason, not_before: int) -> None:
    """Let a job wait for the time of its next try."""
    if move(conn, job_id, State.WAITING, reason):
        conn.execute(update(jobs).where(jobs.c.id == job_id).values(not_before=not_before))


def due_again(conn: Connection, now: int) -> list[Job]:
    """List the jobs whose next try may begin, the one that has waited longest first."""
    query = select(jobs).where(jobs.c.finished_at.is_(None), jobs.c.not_before <= now).order_by(jobs.c.not_before)
    return [_job(row) for row in conn.execute(query).mappings()]


def try_now(conn: Connection, job_id: int, reason: Reason) -> None:
    """Queue a job whose next try may begin."""
    conn.execute(update(jobs).where(jobs.c.id == job_id).values(not_before=None))
    move(conn, job_id, State.QUEUED, reason)


def finish(conn: Connection, job_id: int, state: State, reason: Reason, now: int) -> bool:
    """End a job; False when it had ended before."""
    return move(conn, job_id, state, reason, now)


def claim(conn: Connection, job_id: int) -> bool:
    """Take a queued job for one attempt; False when somebody else has it."""
    query = update(jobs).where(jobs.c.id == job_id, jobs.c.state == State.QUEUED.value)
    return conn.execute(query.values(state=State.RUNNING.value, reason_code="", reason="")).rowcount == 1


def begin(conn: Connection, job_id: int, now: int) -> None:
    """Remember when the work on a job really began; the first attempt counts."""
    conn.execute(update(jobs).where(jobs.c.id == job_id, jobs.c.started_at.is_(None)).values(started_at=now))


# --- attempts --------------------------------------------------------------------------------------------------------


def add_attempt(
    conn: Connection, job_id: int, agent_id: int | None, now: int, *, token_hash: str | None = None
) -> Attempt:
    """Add a running attempt under the next fence, with the path of its log, and return it."""
    query = (
        select(projects.c.name, runs.c.number, jobs.c.key, func.count(attempts.c.id))
        .join(runs, runs.c.project_id == projects.c.id)
        .join(jobs, jobs.c.run_id == runs.c.id)
        .join(attempts, attempts.c.job_id == jobs.c.id, isouter=True)
        .where(jobs.c.id == job_id)
        .group_by(projects.c.name, runs.c.number, jobs.c.key)
    )
    project, number, key, before = conn.execute(query).one()
    fence = counters.next_value(conn, counters.FENCE)
    values = {
        "job_id": job_id,
        "n": before + 1,
        "fence": fence,
        "agent_id": agent_id,
        "state": State.RUNNING.value,
        "token_hash": token_hash,
        "log_path": f"{project}/{number}/{key}.{before + 1}.log",
        "created_at": now,
    }
    return _attempt(conn.execute(attempts.insert().values(**values).returning(*attempts.c)).mappings().one())


def attempts_of(conn: Connection, job_id: int) -> list[Attempt]:
    """List the attempts at a job, the first one first."""
    query = select(attempts).where(attempts.c.job_id == job_id).order_by(attempts.c.n)
    return [_attempt(row) for row in conn.execute(query).mappings()]


def attempts_of_run(conn: Connection, run_id: int) -> list[Attempt]:
    """List all attempts of a run, in the order of its jobs."""
    query = select(attempts).join(jobs, jobs.c.id == attempts.c.job_id).where(jobs.c.run_id == run_id)
    return [_attempt(row) for row in conn.execute(query.order_by(jobs.c.ordinal, attempts.c.n)).mappings()]


def attempt_by_fence(conn: Connection, fence: int) -> Attempt | None:
    """Return the attempt a fence names."""
    row = conn.execute(select(attempts).where(attempts.c.fence == fence)).mappings().first()
    return _attempt(row) if row else None


def held_attempt(conn: Connection, fence: int, agent_id: int) -> Attempt | None:
    """Return the attempt a fence names when this agent holds it: the check before every write that it asks for."""
    query = select(attempts).where(
        attempts.c.fence == fence, attempts.c.agent_id == agent_id, attempts.c.state == State.RUNNING.value
    )
    row = conn.execute(query).mappings().first()
    return _attempt(row) if row else None


def running_attempts(conn: Connection, agent_id: int) -> list[Attempt]:
    """List what an agent holds now."""
    query = select(attempts).where(attempts.c.agent_id == agent_id, attempts.c.finished_at.is_(None))
    return [_attempt(row) for row in conn.execute(query.order_by(attempts.c.fence)).mappings()]


@dataclass(frozen=True, slots=True)
class Holding:
    """A running attempt with the names people know it by."""

    agent_id: int
    fence: int
    kind: JobKind
    project: str
    number: int
    project_id: int


def holdings(conn: Connection) -> list[Holding]:
    """List every running attempt of every agent, oldest first."""
    query = (
        select(attempts.c.agent_id, attempts.c.fence, jobs.c.kind, projects.c.name, runs.c.number, projects.c.id)
        .join(jobs, jobs.c.id == attempts.c.job_id)
        .join(runs, runs.c.id == jobs.c.run_id)
        .join(projects, projects.c.id == runs.c.project_id)
        .where(attempts.c.finished_at.is_(None), attempts.c.agent_id.is_not(None))
    )
    rows = sorted(conn.execute(query), key=lambda row: row[1])  # sorting by SQL would walk the index of all fences
    return [Holding(agent, fence, JobKind(kind), *run) for agent, fence, kind, *run in rows]


def attempt_by_token(conn: Connection, token_hash: str) -> Attempt | None:
    """Return the running attempt a job token belongs to."""
    query = select(attempts).where(attempts.c.token_hash == token_hash, attempts.c.state == State.RUNNING.value)
    row = conn.execute(query).mappings().first()
    return _attempt(row) if row else None


def begin_attempt(conn: Connection, fence: int, now: int) -> None:
    """Remember when an attempt really began."""
    conn.execute(update(attempts).where(attempts.c.fence == fence).values(started_at=now))


def finish_attempt(
    conn: Connection,
    fence: int,
    state: State,
    reason: Reason,
    now: int,
    *,
    exit_code: int | None = None,
    log_bytes: int = 0,
) -> bool:
    """End an attempt and its token; False when it had ended before, and nothing was changed."""
    query = update(attempts).where(attempts.c.fence == fence, attempts.c.state == State.RUNNING.value)
    values = {
        "state": state.value,
        "reason_code": reason.code,
        "reason": reason.sentence,
        "exit_code": exit_code,
        "log_bytes": log_bytes,
        "token_hash": None,
        "finished_at": now,
    }
    return conn.execute(query.values(**values)).rowcount == 1


# --- steps -----------------------------------------------------------------------------------------------------------


def begin_step(conn: Connection, attempt_id: int, ordinal: int, name: str, log_from: int, now: int) -> None:
    """Add a running step; said again it changes nothing."""
    found = conn.execute(select(steps.c.id).where(steps.c.attempt_id == attempt_id, steps.c.ordinal == ordinal)).first()
    if found is None:
        conn.execute(
            steps.insert().values(
                attempt_id=attempt_id,
                ordinal=ordinal,
                name=name,
                state=State.RUNNING.value,
                log_from=log_from,
                started_at=now,
            )
        )


def end_step(conn: Connection, attempt_id: int, ordinal: int, exit_code: int, log_to: int, now: int) -> None:
    """End a running step by its exit code."""
    state = State.SUCCEEDED if exit_code == 0 else State.FAILED
    query = update(steps).where(
        steps.c.attempt_id == attempt_id, steps.c.ordinal == ordinal, steps.c.state == State.RUNNING.value
    )
    conn.execute(query.values(state=state.value, exit_code=exit_code, log_to=log_to, finished_at=now))


def end_open_steps(conn: Connection, attempt_id: int, state: State, log_to: int | None, now: int) -> None:
    """End the steps an attempt left open when it ended."""
    query = update(steps).where(steps.c.attempt_id == attempt_id, steps.c.state == State.RUNNING.value)
    conn.execute(query.values(state=state.value, log_to=log_to, finished_at=now))


def steps_of_run(conn: Connection, run_id: int) -> list[Step]:
    """List the steps of all attempts of a run, those of one attempt in their order."""
    query = select(steps).join(attempts, attempts.c.id == steps.c.attempt_id).join(jobs, jobs.c.id == attempts.c.job_id)
    query = query.where(jobs.c.run_id == run_id).order_by(steps.c.attempt_id, steps.c.ordinal)
    return [Step(**{**row, "state": State(row["state"])}) for row in conn.execute(query).mappings()]


def steps_of(conn: Connection, attempt_id: int) -> list[Step]:
    """List the steps of an attempt in their order."""
    query = select(steps).where(steps.c.attempt_id == attempt_id).order_by(steps.c.ordinal)
    return [Step(**{**row, "state": State(row["state"])}) for row in conn.execute(query).mappings()]
