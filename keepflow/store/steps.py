"""The steps of attempts, written down as their agents report them: those of many attempts at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, select, update

from keepflow.core.states import State
from keepflow.store.tables import attempts, jobs, steps
from keepflow.store.upsert import insert


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


@dataclass(frozen=True, slots=True)
class Begun:
    """A step that began, at this offset of its attempt's log."""

    attempt_id: int
    ordinal: int
    name: str
    log_from: int


@dataclass(frozen=True, slots=True)
class Ended:
    """A step that ended with this exit code, before this offset of its attempt's log."""

    attempt_id: int
    ordinal: int
    exit_code: int
    log_to: int


#: Built once: these are asked for every report, and building costs more than asking.
_END = (
    update(steps)
    .where(
        steps.c.attempt_id == bindparam("of"),
        steps.c.ordinal == bindparam("place"),
        steps.c.state == State.RUNNING.value,
    )
    .values(
        state=bindparam("becomes"), exit_code=bindparam("code"), log_to=bindparam("to"), finished_at=bindparam("at")
    )
)
_END_OPEN = (
    update(steps)
    .where(steps.c.attempt_id == bindparam("of"), steps.c.state == State.RUNNING.value)
    .values(state=bindparam("becomes"), log_to=bindparam("to"), finished_at=bindparam("at"))
)


def begin(conn: Connection, begun: Sequence[Begun], now: int) -> None:
    """Add running steps; one that is there already stays as it is."""
    if not begun:
        return
    rows = [
        {
            "attempt_id": one.attempt_id,
            "ordinal": one.ordinal,
            "name": one.name,
            "state": State.RUNNING.value,
            "log_from": one.log_from,
            "started_at": now,
        }
        for one in begun
    ]
    conn.execute(insert(conn, steps).on_conflict_do_nothing(index_elements=["attempt_id", "ordinal"]), rows)


def end(conn: Connection, ended: Sequence[Ended], now: int) -> None:
    """End running steps by their exit codes."""
    if not ended:
        return
    rows = [
        {
            "of": one.attempt_id,
            "place": one.ordinal,
            "becomes": (State.FAILED if one.exit_code else State.SUCCEEDED).value,
            "code": one.exit_code,
            "to": one.log_to,
            "at": now,
        }
        for one in ended
    ]
    conn.execute(_END, rows)


def end_open(conn: Connection, ended: Sequence[tuple[int, State, int | None]], now: int) -> None:
    """End what attempts that ended left open: each is a row id, the state of the attempt, and the end of its log."""
    if ended:
        rows = [{"of": attempt, "becomes": state.value, "to": to, "at": now} for attempt, state, to in ended]
        conn.execute(_END_OPEN, rows)


def of_run(conn: Connection, run_id: int) -> list[Step]:
    """List the steps of all attempts of a run, those of one attempt in their order."""
    query = select(steps).join(attempts, attempts.c.id == steps.c.attempt_id).join(jobs, jobs.c.id == attempts.c.job_id)
    query = query.where(jobs.c.run_id == run_id).order_by(steps.c.attempt_id, steps.c.ordinal)
    return [Step(**{**row, "state": State(row["state"])}) for row in conn.execute(query).mappings()]


def of_attempt(conn: Connection, attempt_id: int) -> list[Step]:
    """List the steps of an attempt in their order."""
    query = select(steps).where(steps.c.attempt_id == attempt_id).order_by(steps.c.ordinal)
    return [Step(**{**row, "state": State(row["state"])}) for row in conn.execute(query).mappings()]
