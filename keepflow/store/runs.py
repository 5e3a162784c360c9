"""Runs: one execution of one flow at one commit."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, RowMapping, Select, bindparam, func, select, update

from keepflow.core.events import Event, Trust
from keepflow.core.states import FINAL, LIVE, MOVES, Reason, State
from keepflow.store.tables import deliveries, projects, runs


@dataclass(frozen=True, slots=True)
class Run:
    """One run. `plan` is the frozen plan as plain data, `why` says why this flow was started."""

    id: int
    project_id: int
    number: int
    flow: str
    state: State
    reason_code: str
    reason: str
    event: Event
    ref: str
    sha: str
    message: str
    actor: str
    why: str
    plan: dict[str, Any]
    trust: Trust
    approved_by: str | None
    delivery_id: int | None
    agent_id: int | None
    superseded_by: int | None
    rerun_of: int | None
    created_at: int
    started_at: int | None
    finished_at: int | None
    ends_by: int | None
    group: str
    turn_at: int | None


def from_row(row: RowMapping) -> Run:
    """Return the run of a row."""
    return Run(**{**row, "state": State(row["state"]), "event": Event.from_json(row["event"])})


#: Built once: these are asked many times for every report, and building costs as much as asking.
_BY_ID = select(runs).where(runs.c.id == bindparam("id"))
_PLACES = (
    select(runs.c.id, runs.c.agent_id, runs.c.number, projects.c.name)
    .join(projects, projects.c.id == runs.c.project_id)
    .where(runs.c.id.in_(bindparam("ids", expanding=True)))
)
_SEVERAL = select(runs).where(runs.c.id.in_(bindparam("ids", expanding=True)))


@dataclass(frozen=True, slots=True)
class NewRun:
    """A run that is about to be added."""

    project_id: int
    number: int
    flow: str
    event: Event
    state: State
    reason: Reason
    why: str
    plan: dict[str, Any]
    trust: Trust
    delivery_id: int | None
    rerun_of: int | None = None


def add(conn: Connection, now: int, new: NewRun) -> Run:
    """Add a run and return it."""
    return from_row(conn.execute(runs.insert().returning(*runs.c), _values(new, now)).mappings().one())


def add_all(conn: Connection, now: int, news: Sequence[NewRun]) -> list[int]:
    """Add runs in this order and return their row ids."""
    query = runs.insert().returning(runs.c.id, sort_by_parameter_order=True)
    return list(conn.execute(query, [_values(new, now) for new in news]).scalars())


def _values(new: NewRun, now: int) -> dict[str, Any]:
    event = new.event
    return {
        "project_id": new.project_id,
        "number": new.number,
        "flow": new.flow,
        "state": new.state.value,
        "reason_code": new.reason.code,
        "reason": new.reason.sentence,
        "event": event.to_json(),
        "ref": event.ref[:255],
        "sha": event.sha,
        "message": event.message,
        "actor": event.actor[:200],
        "why": new.why,
        "plan": new.plan,
        "group": new.plan.get("group", ""),
        "trust": new.trust,
        "delivery_id": new.delivery_id,
        "rerun_of": new.rerun_of,
        "created_at": now,
        "finished_at": now if new.state in FINAL else None,
    }


def by_id(conn: Connection, run_id: int) -> Run:
    """Return a run by its row id; it must exist."""
    return from_row(conn.execute(_BY_ID, {"id": run_id}).mappings().one())


def by_ids(conn: Connection, run_ids: Collection[int]) -> dict[int, Run]:
    """Return runs by their row ids."""
    return {row["id"]: from_row(row) for row in conn.execute(_SEVERAL, {"ids": list(run_ids)}).mappings()}


@dataclass(frozen=True, slots=True)
class Place:
    """Which agent a run stays on, if any yet, and the name people know it by."""

    agent_id: int | None
    name: str


def places(conn: Connection, run_ids: Collection[int]) -> dict[int, Place]:
    """Return where runs are, by their row ids."""
    found = conn.execute(_PLACES, {"ids": list(run_ids)})
    return {run_id: Place(agent_id, f"{project}#{number}") for run_id, agent_id, number, project in found}


def by_number(conn: Connection, project_id: int, number: int) -> Run | None:
    """Return a run by its project and number."""
    query = select(runs).where(runs.c.project_id == project_id, runs.c.number == number)
    row = conn.execute(query).mappings().first()
    return from_row(row) if row else None


def page(
    conn: Connection,
    project_ids: Collection[int] | None = None,
    before: int | None = None,
    limit: int = 50,
    **filters: Any,
) -> list[Run]:
    """List runs of these projects (None: of all), newest first, below the row id `before`.

    `filters` are columns and their values (`flow="dev"`).
    """
    query = select(runs).where(*(runs.c[name] == value for name, value in filters.items()))
    if project_ids is not None:
        query = query.where(runs.c.project_id.in_(project_ids))
    if before is not None:
        query = query.where(runs.c.id < before)
    return [from_row(row) for row in conn.execute(query.order_by(runs.c.id.desc()).limit(limit)).mappings()]


def of_delivery(conn: Connection, delivery_id: int) -> list[Run]:
    """List the runs a delivery started."""
    query = select(runs).where(runs.c.delivery_id == delivery_id).order_by(runs.c.id)
    return [from_row(row) for row in conn.execute(query).mappings()]


def again(conn: Connection, run_id: int) -> list[Run]:
    """List the runs that do one again, oldest first."""
    query = select(runs).where(runs.c.rerun_of == run_id).order_by(runs.c.id)
    return [from_row(row) for row in conn.execute(query).mappings()]


def every_live(conn: Connection) -> list[Run]:
    """List the runs of all projects that have not ended, oldest first."""
    query = select(runs).where(runs.c.finished_at.is_(None)).order_by(runs.c.id)
    return [from_row(row) for row in conn.execute(query).mappings()]


def waiting_of_ref(conn: Connection, project_id: int, ref: str) -> list[Run]:
    """List the runs of a ref that nothing works on, oldest first."""
    states = runs.c.state.in_((State.QUEUED, State.WAITING))
    query = select(runs).where(states, runs.c.project_id == project_id, runs.c.ref == ref).order_by(runs.c.id)
    return [from_row(row) for row in conn.execute(query).mappings()]


def judged_before(conn: Connection, run: Run) -> Run | None:
    """Return the last older run of the same flow and ref that succeeded or failed."""
    judged = [state.value for state in (State.SUCCEEDED, State.FAILED, State.LOST)]
    query = select(runs).where(runs.c.project_id == run.project_id, runs.c.flow == run.flow, runs.c.ref == run.ref)
    query = query.where(runs.c.id < run.id, runs.c.state.in_(judged))
    row = conn.execute(query.order_by(runs.c.id.desc()).limit(1)).mappings().first()
    return from_row(row) if row else None


def last_of_commit(conn: Connection, project_id: int, ref: str, sha: str) -> Run | None:
    """Return the newest run of one commit on one ref."""
    row = conn.execute(_of_commit(project_id, ref, sha).order_by(runs.c.id.desc()).limit(1)).mappings().first()
    return from_row(row) if row else None


def newest_of_flow(conn: Connection, run: Run) -> int:
    """Return the row id of the newest run of the same flow at the same commit and ref."""
    query = _of_commit(run.project_id, run.ref, run.sha).where(runs.c.flow == run.flow)
    return int(conn.execute(query.with_only_columns(func.max(runs.c.id))).scalar_one())


def of_commit_by(conn: Connection, project_id: int, ref: str, sha: str, forge: str) -> list[Run]:
    """List the runs of one commit on one ref that deliveries of one forge started, oldest first."""
    query = _of_commit(project_id, ref, sha).join(deliveries, deliveries.c.id == runs.c.delivery_id)
    query = query.where(deliveries.c.forge == forge)
    return [from_row(row) for row in conn.execute(query.order_by(runs.c.id)).mappings()]


def _of_commit(project_id: int, ref: str, sha: str) -> Select[Any]:
    return select(runs).where(runs.c.project_id == project_id, runs.c.ref == ref, runs.c.sha == sha)


def move(conn: Connection, run_id: int, state: State, reason: Reason, now: int, **columns: Any) -> bool:
    """Bring a run into a state (or give the state it is in a new reason); False when that move is not legal.

    Sets `started_at` the first time it runs and `finished_at` when it ends.
    """
    values: dict[str, Any] = {"state": state.value, "reason_code": reason.code, "reason": reason.sentence, **columns}
    if state in FINAL:
        values["finished_at"] = now
    if state == State.RUNNING:
        values["started_at"] = func.coalesce(runs.c.started_at, now)
    query = update(runs).where(runs.c.id == run_id, runs.c.state.in_(may_come_from(state)))
    return conn.execute(query.values(**values)).rowcount == 1


def overdue(conn: Connection, now: int) -> list[Run]:
    """List the runs whose time is up, the one that has waited longest first."""
    query = select(runs).where(runs.c.finished_at.is_(None), runs.c.ends_by <= now)
    return [from_row(row) for row in conn.execute(query.order_by(runs.c.ends_by)).mappings()]


def limit(conn: Connection, run_id: int, ends_by: int | None) -> None:
    """Give a run another time by which it is ended; None = it takes as long as it takes."""
    conn.execute(update(runs).where(runs.c.id == run_id).values(ends_by=ends_by))


def unapproved(conn: Connection, before: int) -> list[Run]:
    """List the runs of forks made before a time that nobody has let begin, oldest first."""
    query = select(runs).where(
        runs.c.finished_at.is_(None), runs.c.trust == "fork", runs.c.approved_by.is_(None), runs.c.created_at < before
    )
    return [from_row(row) for row in conn.execute(query.order_by(runs.c.id)).mappings()]


def approve(conn: Connection, run_id: int, by: str) -> bool:
    """Remember who let a run of somebody else's code begin; False when somebody did before."""
    query = update(runs).where(runs.c.id == run_id, runs.c.approved_by.is_(None))
    return conn.execute(query.values(approved_by=by)).rowcount == 1


def give_turn(conn: Connection, run_id: int, now: int) -> None:
    """Remember when the turn of a run came among those that must not run at once."""
    conn.execute(update(runs).where(runs.c.id == run_id).values(turn_at=now))


def bind_agent(conn: Connection, run_id: int, agent_id: int | None) -> None:
    """Remember the agent a run stays on, or that it may go to any."""
    conn.execute(update(runs).where(runs.c.id == run_id).values(agent_id=agent_id))


def point_to_newer(conn: Connection, run_ids: Collection[int], newer_id: int) -> None:
    """Remember the run that took the place of these."""
    if run_ids:
        conn.execute(update(runs).where(runs.c.id.in_(run_ids)).values(superseded_by=newer_id))


def may_come_from(state: State) -> tuple[State, ...]:
    """Return the states from which this one can be reached; a live state also from itself, for a new reason."""
    return tuple(old for old in State if state in MOVES[old] or (old is state and state in LIVE))
