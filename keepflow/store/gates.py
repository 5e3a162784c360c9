"""Queries of gates: the tested releases that wait, or waited, for a person; one open gate per environment."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, RowMapping, insert, select, update

from keepflow.core.gates import Gate, GateState
from keepflow.core.states import Reason
from keepflow.store.tables import gates


@dataclass(frozen=True, slots=True)
class StoredGate:
    """One gate with its release and why it was closed."""

    id: int
    environment_id: int
    release_id: int
    identity: str
    gate: Gate
    reason_code: str
    reason: str
    opened_at: int
    closed_at: int | None


def add(
    conn: Connection, environment_id: int, release_id: int, identity: str, gate: Gate, reason: Reason, now: int
) -> None:
    """Add a gate; a second open one of an environment fails on its key."""
    conn.execute(
        insert(gates).values(
            environment_id=environment_id,
            release_id=release_id,
            identity=identity,
            run=gate.run,
            state=gate.state.value,
            reason_code=reason.code,
            reason=reason.sentence,
            opened_at=now,
            lapses_at=gate.lapses_at,
            closed_at=None if gate.state is GateState.OPEN else now,
        )
    )


def close(conn: Connection, gate_id: int, state: GateState, reason: Reason, now: int) -> bool:
    """Close a gate if it is open; say whether it was."""
    key = (gates.c.id == gate_id) & (gates.c.state == GateState.OPEN.value)
    values = {"state": state.value, "reason_code": reason.code, "reason": reason.sentence, "closed_at": now}
    return conn.execute(update(gates).where(key).values(**values)).rowcount == 1


def open_one(conn: Connection, environment_id: int) -> StoredGate | None:
    """Return the open gate of an environment, or None."""
    query = select(gates).where(gates.c.environment_id == environment_id, gates.c.closed_at.is_(None))
    row = conn.execute(query).mappings().first()
    return _stored(row) if row else None


def every_open(conn: Connection) -> list[StoredGate]:
    """List the open gates of all environments."""
    query = select(gates).where(gates.c.closed_at.is_(None)).order_by(gates.c.id)
    return [_stored(row) for row in conn.execute(query).mappings()]


def newest(conn: Connection, environment_id: int, identity: str) -> StoredGate | None:
    """Return the newest gate of one image in an environment, open or closed, or None."""
    query = select(gates).where(gates.c.environment_id == environment_id, gates.c.identity == identity)
    row = conn.execute(query.order_by(gates.c.id.desc()).limit(1)).mappings().first()
    return _stored(row) if row else None


def _stored(row: RowMapping) -> StoredGate:
    gate = Gate(row["run"], GateState(row["state"]), row["lapses_at"])
    return StoredGate(
        row["id"],
        row["environment_id"],
        row["release_id"],
        row["identity"],
        gate,
        row["reason_code"],
        row["reason"],
        row["opened_at"],
        row["closed_at"],
    )
