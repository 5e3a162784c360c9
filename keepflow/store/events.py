"""The append-only events: audit log, feed of live pages, outbox of notifications; each row is chained to the last."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select

from keepflow.core.deploys import canonical
from keepflow.store.environments import Environment
from keepflow.store.tables import events
from keepflow.store.writer import Tx

_FIRST = "0" * 64
#: Built once: every change of anything adds an event.
_ADD = events.insert().returning(events.c.id)
_ADD_ALL = events.insert()
_LAST = select(events.c.chain).order_by(events.c.id.desc()).limit(1)


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """One row. `data` holds no secret and is shown to people who may see the project."""

    id: int
    at: int
    kind: str
    actor: str
    project_id: int | None
    run_id: int | None
    environment_id: int | None
    deployment_id: str | None
    agent_id: int | None
    data: dict[str, Any]
    chain: str


def add(
    tx: Tx,
    now: int,
    kind: str,
    *,
    actor: str = "",
    project_id: int | None = None,
    run_id: int | None = None,
    environment_id: int | None = None,
    deployment_id: str | None = None,
    agent_id: int | None = None,
    data: Mapping[str, Any] | None = None,
) -> int:
    """Append one event and return its id.

    `actor` is a user name, `agent:<name>`, a forge's sender, or "" for keepflow itself. Readers are told by whoever
    submits the closure (topic `events`).
    """
    row = _row(now, kind, actor, project_id, run_id, environment_id, deployment_id, agent_id, data)
    return int(tx.conn.execute(_ADD, _chained(tx, row)).scalar_one())


def add_about(
    tx: Tx,
    now: int,
    kind: str,
    environment: Environment,
    *,
    actor: str = "",
    deployment: str | None = None,
    data: Mapping[str, Any] | None = None,
) -> int:
    """Append one event about an environment, or about a deployment there, and return its id."""
    project, place = environment.project_id, environment.id
    return add(
        tx, now, kind, actor=actor, project_id=project, environment_id=place, deployment_id=deployment, data=data
    )


@dataclass(frozen=True, slots=True)
class Told:
    """What one of several events of a kind says of a run."""

    project_id: int
    run_id: int
    data: Mapping[str, Any]
    actor: str = ""
    agent_id: int | None = None


def add_all(tx: Tx, now: int, kind: str, told: Sequence[Told]) -> None:
    """Append events of one kind, in this order."""
    rows = [_row(now, kind, one.actor, one.project_id, one.run_id, None, None, one.agent_id, one.data) for one in told]
    if rows:
        tx.conn.execute(_ADD_ALL, [_chained(tx, row) for row in rows])


def _row(
    now: int,
    kind: str,
    actor: str,
    project_id: int | None,
    run_id: int | None,
    environment_id: int | None,
    deployment_id: str | None,
    agent_id: int | None,
    data: Mapping[str, Any] | None,
) -> dict[str, Any]:
    return {
        "at": now,
        "kind": kind,
        "actor": actor[:200],
        "project_id": project_id,
        "run_id": run_id,
        "environment_id": environment_id,
        "deployment_id": deployment_id,
        "agent_id": agent_id,
        "data": dict(data or {}),
    }


def _chained(tx: Tx, row: dict[str, Any]) -> dict[str, Any]:
    tx.chain = link(tx.chain or _last_link(tx.conn), row)
    return {**row, "chain": tx.chain}


def link(previous: str, row: Mapping[str, Any]) -> str:
    """Return the chain value of a row (everything but `id` and `chain`) that follows `previous`."""
    return hashlib.sha256(previous.encode() + canonical(dict(row))).hexdigest()


def broken_at(conn: Connection) -> int | None:
    """Return the id of the first event that was changed or put where another was, or None when the chain is whole."""
    previous = _FIRST
    for row in conn.execute(select(events).order_by(events.c.id)).mappings():
        content = {name: value for name, value in row.items() if name not in ("id", "chain")}
        if link(previous, content) != row["chain"]:
            return int(row["id"])
        previous = row["chain"]
    return None


def last_id(conn: Connection) -> int:
    """Return the id of the newest event, 0 when there is none."""
    return conn.execute(select(events.c.id).order_by(events.c.id.desc()).limit(1)).scalar() or 0


def since(conn: Connection, after_id: int, limit: int, **filters: int | str) -> list[StoredEvent]:
    """List events after an id, oldest first; `filters` are columns and their values (`project_id=3`)."""
    query = select(events).where(events.c.id > after_id, *(events.c[name] == value for name, value in filters.items()))
    return [StoredEvent(**row) for row in conn.execute(query.order_by(events.c.id).limit(limit)).mappings()]


def of_kinds(conn: Connection, kinds: Collection[str], after_id: int, limit: int) -> list[StoredEvent]:
    """List events of these kinds after an id, oldest first."""
    query = select(events).where(events.c.id > after_id, events.c.kind.in_(kinds))
    return [StoredEvent(**row) for row in conn.execute(query.order_by(events.c.id).limit(limit)).mappings()]


def _last_link(conn: Connection) -> str:
    return conn.execute(_LAST).scalar() or _FIRST
