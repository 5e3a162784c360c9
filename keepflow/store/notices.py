"""Notices on their way: one row per event, channel and recipient; a row waits until it was sent or given up."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, delete, func, select, text, update

from keepflow.core.notices import Notice
from keepflow.store.tables import notices
from keepflow.store.upsert import insert

WAITING, SENT, FAILED = "waiting", "sent", "failed"


@dataclass(frozen=True, slots=True)
class StoredNotice:
    """One row; `error` is what the last try that failed said."""

    id: int
    event_id: int
    channel: str
    recipient: str
    delivery: str
    content: dict[str, Any]
    project_id: int | None
    state: str
    tries: int
    error: str
    made_at: int
    next_at: int | None
    ended_at: int | None

    @property
    def notice(self) -> Notice:
        """What is told."""
        return Notice.from_json(self.content)


def add(
    conn: Connection, event_id: int, channel: str, recipient: str, notice: Notice, project_id: int | None, now: int
) -> None:
    """Add a notice that is due at once; one of the same event, channel and recipient is there only once."""
    row = {
        "event_id": event_id,
        "channel": channel,
        "recipient": recipient,
        "delivery": notice.delivery,
        "content": notice.to_json(),
        "project_id": project_id,
        "state": WAITING,
        "made_at": now,
        "next_at": now,
    }
    conn.execute(insert(conn, notices).values(**row).on_conflict_do_nothing())


def due(conn: Connection, now: int, without: Collection[str] = (), limit: int = 100) -> list[StoredNotice]:
    """List what should be sent now, oldest first, but for these channels."""
    query = select(notices).where(_waiting(without), notices.c.next_at <= now)
    return _read(conn, query.order_by(notices.c.next_at, notices.c.id).limit(limit))


def next_due(conn: Connection, without: Collection[str] = ()) -> int | None:
    """Return when the next notice should be sent, but for these channels; None when none waits."""
    return conn.execute(select(func.min(notices.c.next_at)).where(_waiting(without))).scalar()


def sent(conn: Connection, notice_id: int, now: int) -> None:
    """Write down that a channel has taken a notice."""
    values = {"state": SENT, "tries": notices.c.tries + 1, "next_at": None, "ended_at": now}
    conn.execute(update(notices).where(notices.c.id == notice_id).values(**values))


def failed(conn: Connection, notice_id: int, error: str, next_at: int | None, now: int) -> None:
    """Write down that a try failed, and when the next one is; None gives it up."""
    values: dict[str, Any] = {"tries": notices.c.tries + 1, "error": error, "next_at": next_at}
    if next_at is None:
        values |= {"state": FAILED, "ended_at": now}
    conn.execute(update(notices).where(notices.c.id == notice_id).values(**values))


def page(conn: Connection, before: int | None = None, limit: int = 50, state: str | None = None) -> list[StoredNotice]:
    """List notices, newest first, below the row id `before`."""
    query = select(notices)
    if before is not None:
        query = query.where(notices.c.id < before)
    if state is not None:
        query = query.where(notices.c.state == state)
    return _read(conn, query.order_by(notices.c.id.desc()).limit(limit))


def troubled(conn: Connection) -> list[StoredNotice]:
    """Return the newest notice of each channel, of those whose newest one was not sent at the first try."""
    newest = select(func.max(notices.c.id)).group_by(notices.c.channel).scalar_subquery()
    query = select(notices).where(notices.c.id.in_(newest), notices.c.state != SENT, notices.c.tries > 0)
    return _read(conn, query.order_by(notices.c.channel))


def sweep(conn: Connection, before: int) -> None:
    """Forget what ended before a time."""
    conn.execute(delete(notices).where(notices.c.ended_at < before))


def _waiting(without: Collection[str]) -> ColumnElement[bool]:
    waits = notices.c.state == text("'waiting'")  # as the partial index says it, or it is not used
    return and_(waits, notices.c.channel.not_in(without)) if without else waits


def _read(conn: Connection, query: Select[Any]) -> list[StoredNotice]:
    return [StoredNotice(**row) for row in conn.execute(query).mappings()]
