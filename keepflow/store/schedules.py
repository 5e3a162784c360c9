"""Flows that the clock starts: what is due, and what was missed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from sqlalchemy import Connection, delete, select, update

from keepflow.store.tables import schedules


@dataclass(frozen=True, slots=True)
class Scheduled:
    """One flow of a project and its cron line; `missed` are the times before `last_at` that nobody was there for."""

    project_id: int
    flow: str
    cron: str
    tz: str
    ref: str
    next_at: int | None
    last_at: int | None = None
    missed: int = 0


def of_project(conn: Connection, project_id: int) -> list[Scheduled]:
    """List the flows of a project that the clock starts, by name."""
    query = select(schedules).where(schedules.c.project_id == project_id).order_by(schedules.c.flow)
    return [Scheduled(**row) for row in conn.execute(query).mappings()]


def due(conn: Connection, now: int) -> list[Scheduled]:
    """List what is due, the one due longest first."""
    query = select(schedules).where(schedules.c.next_at <= now).order_by(schedules.c.next_at)
    return [Scheduled(**row) for row in conn.execute(query).mappings()]


def replace(conn: Connection, project_id: int, wanted: Sequence[Scheduled]) -> None:
    """Make these the flows of a project that the clock starts."""
    conn.execute(delete(schedules).where(schedules.c.project_id == project_id))
    for one in wanted:
        conn.execute(schedules.insert().values(**asdict(one)))


def fired(conn: Connection, one: Scheduled, at: int, missed: int, next_at: int | None) -> bool:
    """Write down that a flow was started for the time `at`; False when somebody did, and nothing was changed."""
    mine = (schedules.c.project_id == one.project_id, schedules.c.flow == one.flow, schedules.c.next_at == one.next_at)
    changed = conn.execute(update(schedules).where(*mine).values(last_at=at, missed=missed, next_at=next_at))
    return changed.rowcount == 1
