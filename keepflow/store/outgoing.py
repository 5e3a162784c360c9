"""What agents must be told; a row is repeated on every session until its agent has it on disk."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, bindparam, delete, select, update

from keepflow.store.tables import outgoing


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One row; `body` is a `wire.messages.Body` as plain data without its secrets, which are `sealed`."""

    id: int
    agent_id: int
    fence: int
    body: dict[str, Any] = field(repr=False)
    sealed: bytes | None = field(repr=False)
    created_at: int
    received_at: int | None


#: Built once: every job asks these, and building costs more than asking.
_ADD = outgoing.insert().returning(outgoing.c.id)
_WAITING = (
    select(outgoing)
    .where(
        outgoing.c.agent_id == bindparam("agent"), outgoing.c.received_at.is_(None), outgoing.c.id > bindparam("after")
    )
    .order_by(outgoing.c.id)
    .limit(bindparam("most"))
)
_RECEIVED = (
    update(outgoing)
    .where(
        outgoing.c.agent_id == bindparam("agent"),
        outgoing.c.id.in_(bindparam("ids", expanding=True)),
        outgoing.c.received_at.is_(None),
    )
    .values(received_at=bindparam("at"), sealed=None)
)


def add(
    conn: Connection, agent_id: int, fence: int, body: dict[str, Any], now: int, sealed: bytes | None = None
) -> int:
    """Add a row for an agent and return its id; `engine.sending` also wakes the agent's session."""
    values = {"agent_id": agent_id, "fence": fence, "body": body, "sealed": sealed, "created_at": now}
    return int(conn.execute(_ADD, values).scalar_one())


def waiting(conn: Connection, agent_id: int, after: int = 0, limit: int = 100) -> list[Outgoing]:
    """List what an agent does not have on disk yet, oldest first, beyond the row id `after`."""
    found = conn.execute(_WAITING, {"agent": agent_id, "after": after, "most": limit})
    return [Outgoing(**row) for row in found.mappings()]


def of_fence(conn: Connection, agent_id: int, fence: int) -> list[Outgoing]:
    """List all an agent was or will be told about one fence."""
    query = select(outgoing).where(outgoing.c.agent_id == agent_id, outgoing.c.fence == fence)
    return [Outgoing(**row) for row in conn.execute(query.order_by(outgoing.c.id)).mappings()]


def is_waiting(conn: Connection, fence: int) -> bool:
    """Say whether something about a fence is not on its agent's disk yet."""
    query = select(outgoing.c.id).where(outgoing.c.fence == fence, outgoing.c.received_at.is_(None))
    return conn.execute(query.limit(1)).first() is not None


def withdraw(conn: Connection, fence: int) -> None:
    """Take back what no agent has on disk about a fence; an agent that has it already must refuse it by itself."""
    conn.execute(delete(outgoing).where(outgoing.c.fence == fence, outgoing.c.received_at.is_(None)))


def was_received(conn: Connection, fence: int) -> bool:
    """Say whether something about a fence came to its agent's disk."""
    query = select(outgoing.c.id).where(outgoing.c.fence == fence, outgoing.c.received_at.is_not(None))
    return conn.execute(query.limit(1)).first() is not None


def forget_waiting(conn: Connection, now: int) -> None:
    """Send nothing of what waits; of deploys it is assumed that they came through, so that their agents are asked."""
    waiting = outgoing.c.received_at.is_(None)
    rows = conn.execute(select(outgoing.c.id, outgoing.c.body).where(waiting)).all()
    deploys = [row.id for row in rows if row.body["type"] == "deploy"]
    conn.execute(update(outgoing).where(outgoing.c.id.in_(deploys)).values(received_at=now))
    conn.execute(delete(outgoing).where(waiting))


def received(conn: Connection, agent_id: int, ids: Iterable[int], now: int) -> None:
    """Mark rows as on the agent's disk; sealed secrets are no longer needed and are forgotten."""
    conn.execute(_RECEIVED, {"agent": agent_id, "ids": list(ids), "at": now})
