"""Jobs and their attempts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, RowMapping, and_, bindparam, case, func, or_, select, update

from keepflow.core.flows import JobKind, PlannedJob
from keepflow.core.progress import NEEDS, NO_REASON
from keepflow.core.queueing import Waiting
from keepflow.core.states import FINAL, Reason, State
from keepflow.store import counters
from keepflow.store.runs import may_come_from
from keepflow.store.tables import attempts, jobs, projects, runs


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
_IN_LINE = (
    select(jobs.c.id, runs.c.project_id, jobs.c.rank, projects.c.served, jobs.c.reason_code)
    .join(runs, runs.c.id == jobs.c.run_id)
    .join(projects, projects.c.id == runs.c.project_id)
    .where(
        jobs.c.finished_at.is_(None),
        or_(
            jobs.c.state == State.QUEUED.value,
            and_(jobs.c.state == State.WAITING.value, jobs.c.reason_code == bindparam("code")),
        ),
        jobs.c.kind == JobKind.SCRIPT.value,
        projects.c.paused_at.is_(None),
    )
)
_WAITING_DEPLOYS = select(jobs.c.run_id).where(
    jobs.c.finished_at.is_(None),
    jobs.c.state == State.WAITING.value,
    jobs.c.kind == JobKind.DEPLOY.value,
    jobs.c.reason_code != NEEDS,
)
_HOLDINGS = (
    select(attempts.c.agent_id, attempts.c.fence, jobs.c.kind, projects.c.name, runs.c.number, projects.c.id)
    .join(jobs, jobs.c.id == attempts.c.job_id)
    .join(runs, runs.c.id == jobs.c.run_id)
    .join(projects, projects.c.id == runs.c.project_id)
    .where(attempts.c.finished_at.is_(None), attempts.c.agent_id.is_not(None))
)
_SEVERAL = select(jobs).where(jobs.c.id.in_(bindparam("ids", expanding=True)))
_RUNS_OF = select(jobs.c.run_id).where(jobs.c.id.in_(bindparam("ids", expanding=True)))
_CLAIM = (
    update(jobs)
    .where(jobs.c.id == bindparam("job"), jobs.c.state == State.QUEUED.value)
    .values(state=State.RUNNING.value, reason_code="", reason="")
)
#: Not by IN, whose length is only known when it is asked: such statements take no several rows at once.
_MOVE = {
    state: update(jobs).where(
        jobs.c.id == bindparam("job"), or_(*(jobs.c.state == before.value for before in may_come_from(state)))
    )
    for state in State
    if may_come_from(state)
}
_BEGIN = (
    update(jobs).where(jobs.c.id == bindparam("job"), jobs.c.started_at.is_(None)).values(started_at=bindparam("at"))
)
_HELD = select(attempts).where(
    attempts.c.fence.in_(bindparam("fences", expanding=True)),
    attempts.c.agent_id == bindparam("agent"),
    attempts.c.state == State.RUNNING.value,
)
_TRIES = (
    select(attempts.c.job_id, func.count().label("n"))
    .where(attempts.c.job_id.in_(bindparam("ids", expanding=True)))
    .group_by(attempts.c.job_id)
)
_ADD_ATTEMPT = attempts.insert().returning(*attempts.c)
_LOG_OF = (
    select(
        attempts.c.agent_id,
        attempts.c.log_path,
        case((attempts.c.finished_at.is_(None), 0), else_=attempts.c.log_bytes),
        runs.c.project_id,
    )
    .join(jobs, jobs.c.id == attempts.c.job_id)
    .join(runs, runs.c.id == jobs.c.run_id)
    .where(attempts.c.fence == bindparam("label"))
)
_BEGIN_ATTEMPT = update(attempts).where(attempts.c.fence == bindparam("label")).values(started_at=bindparam("at"))
_FINISH_ATTEMPT = (
    update(attempts)
    .where(attempts.c.fence == bindparam("label"), attempts.c.state == State.RUNNING.value)
    .values(token_hash=None)
)


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


def by_ids(conn: Connection, job_ids: Iterable[int]) -> dict[int, Job]:
    """Return jobs by their row ids."""
    return {row["id"]: _job(row) for row in conn.execute(_SEVERAL, {"ids": list(job_ids)}).mappings()}


def runs_of(conn: Connection, job_ids: Iterable[int]) -> set[int]:
    """Return the runs of some jobs."""
    return set(conn.execute(_RUNS_OF, {"ids": list(job_ids)}).scalars())


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


def waiting_for_agents(conn: Connection, no_agent: str) -> list[tuple[Waiting, str]]:
    """List the script jobs that may start now, each with the code of its reason.

    Those are the queued ones and the ones that wait with the reason code `no_agent`, but none of a paused project.
    """
    return [(Waiting(*row[:-1]), row[-1]) for row in conn.execute(_IN_LINE, {"code": no_agent})]


def agents_of(conn: Connection, run_id: int, keys: Sequence[str]) -> set[int]:
    """Return the agents that carried out the last attempts at some jobs of a run."""
    query = (
        select(jobs.c.key, attempts.c.agent_id)
        .join(attempts, attempts.c.job_id == jobs.c.id)
        .where(jobs.c.run_id == run_id, jobs.c.key.in_(keys), jobs.c.kind == JobKind.SCRIPT.value)
    )
    last = {row.key: row.agent_id for row in conn.execute(query.order_by(attempts.c.n))}
    return {agent_id for agent_id in last.values() if agent_id is not None}


def in_order(conn: Connection, job_ids: Sequence[int]) -> list[Job]:
    """Return jobs in this order."""
    found = by_ids(conn, job_ids)
    return [found[job_id] for job_id in job_ids]


def runs_with_waiting_deploys(conn: Connection) -> list[int]:
    """List the runs that have a deploy job waiting for something outside of their own run."""
    return sorted(set(conn.execute(_WAITING_DEPLOYS).scalars()))


def move(conn: Connection, job_id: int, state: State, reason: Reason, now: int | None = None) -> bool:
    """Bring a job into a state (or give the state it is in a new reason); False when that move is not legal."""
    return conn.execute(_MOVE[state], _move(job_id, state, reason, now)).rowcount == 1


def _move(job_id: int, state: State, reason: Reason, now: int | None) -> dict[str, Any]:
    values = {"job": job_id, "state": state.value, "reason_code": reason.code, "reason": reason.sentence}
    return {**values, "finished_at": now} if state in FINAL else values


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
    begin(conn, [job_id], now)
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


def finish_all(conn: Connection, ended: Sequence[tuple[int, State, Reason]], now: int) -> None:
    """End jobs, by their row ids; each must be one that can end so."""
    for state in {state for _, state, _ in ended}:
        rows = [_move(job_id, state, reason, now) for job_id, other, reason in ended if other is state]
        conn.execute(_MOVE[state], rows)


def claim(conn: Connection, job_id: int) -> bool:
    """Take a queued job for one attempt; False when somebody else has it."""
    return conn.execute(_CLAIM, {"job": job_id}).rowcount == 1


def begin(conn: Connection, job_ids: Iterable[int], now: int) -> None:
    """Remember when the work on jobs really began; the first attempt counts."""
    if rows := [{"job": job_id, "at": now} for job_id in job_ids]:
        conn.execute(_BEGIN, rows)


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
    return add_numbered(
        conn, NewAttempt(job_id, before + 1, fence, f"{project}/{number}/{key}"), agent_id, now, token_hash
    )


@dataclass(frozen=True, slots=True)
class NewAttempt:
    """An attempt that is about to be added: its number at its job, its fence, and the path of the job's logs."""

    job_id: int
    n: int
    fence: int
    logs: str


def add_numbered(
    conn: Connection, new: NewAttempt, agent_id: int | None, now: int, token_hash: str | None = None
) -> Attempt:
    """Add a running attempt whose number and fence were taken for it in this transaction, and return it."""
    values = {
        "job_id": new.job_id,
        "n": new.n,
        "fence": new.fence,
        "agent_id": agent_id,
        "state": State.RUNNING.value,
        "token_hash": token_hash,
        "log_path": f"{new.logs}.{new.n}.log",
        "created_at": now,
    }
    return _attempt(conn.execute(_ADD_ATTEMPT, values).mappings().one())


def tries(conn: Connection, job_ids: Iterable[int]) -> dict[int, int]:
    """Return how many attempts there were at some jobs; those with none are left out."""
    return {row.job_id: row.n for row in conn.execute(_TRIES, {"ids": list(job_ids)})}


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


def held(conn: Connection, fences: Iterable[int], agent_id: int) -> dict[int, Attempt]:
    """Return those of some attempts that this agent holds: the check before every write that it asks for."""
    found = conn.execute(_HELD, {"fences": list(fences), "agent": agent_id}).mappings()
    return {row["fence"]: _attempt(row) for row in found}


@dataclass(frozen=True, slots=True)
class LogPlace:
    """Where the log of an attempt is, and whose; `total` is its length as the agent says, 0 until the attempt ended."""

    agent_id: int | None
    path: str
    total: int
    project_id: int


def log_of(conn: Connection, fence: int) -> LogPlace | None:
    """Return the place of the log of the attempt that a fence names."""
    row = conn.execute(_LOG_OF, {"label": fence}).first()
    return LogPlace(*row) if row else None


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
    rows = sorted(conn.execute(_HOLDINGS), key=lambda row: row[1])  # sorting by SQL would walk the index of all fences
    return [Holding(agent, fence, JobKind(kind), *run) for agent, fence, kind, *run in rows]


def attempt_by_token(conn: Connection, token_hash: str) -> Attempt | None:
    """Return the running attempt a job token belongs to."""
    query = select(attempts).where(attempts.c.token_hash == token_hash, attempts.c.state == State.RUNNING.value)
    row = conn.execute(query).mappings().first()
    return _attempt(row) if row else None


def begin_attempts(conn: Connection, fences: Iterable[int], now: int) -> None:
    """Remember when attempts really began."""
    if rows := [{"label": fence, "at": now} for fence in fences]:
        conn.execute(_BEGIN_ATTEMPT, rows)


@dataclass(frozen=True, slots=True)
class End:
    """How an attempt ended; `log_bytes` is what the agent counted."""

    fence: int
    state: State
    reason: Reason
    exit_code: int | None = None
    log_bytes: int = 0


def finish_attempts(conn: Connection, ends: Sequence[End], now: int) -> int:
    """End attempts and their tokens, and return how many that were; one that had ended before is not changed."""
    rows = [
        {
            "label": end.fence,
            "state": end.state.value,
            "reason_code": end.reason.code,
            "reason": end.reason.sentence,
            "exit_code": end.exit_code,
            "log_bytes": end.log_bytes,
            "finished_at": now,
        }
        for end in ends
    ]
    return conn.execute(_FINISH_ATTEMPT, rows).rowcount if rows else 0


def finish_attempt(conn: Connection, fence: int, state: State, reason: Reason, now: int, *, log_bytes: int = 0) -> bool:
    """End one attempt and its token; False when it had ended before, and nothing was changed."""
    return finish_attempts(conn, [End(fence, state, reason, None, log_bytes)], now) == 1
