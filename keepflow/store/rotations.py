"""Queries of key rotations: which order keys there were, and who made the next one. They are added, never deleted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, insert, select

from keepflow.store.tables import key_rotations


@dataclass(frozen=True, slots=True)
class StoredRotation:
    """One new order key, as text; `envelope` is what agents follow."""

    id: int
    old_key: str
    new_key: str
    envelope: dict[str, Any]
    made_by: str
    at: int


def add(conn: Connection, old_key: str, new_key: str, envelope: dict[str, Any], made_by: str, now: int) -> None:
    """Add a rotation; a key that was replaced before is refused by the database."""
    row = {"old_key": old_key, "new_key": new_key, "envelope": envelope, "made_by": made_by[:200], "at": now}
    conn.execute(insert(key_rotations).values(**row))


def every(conn: Connection) -> list[StoredRotation]:
    """List all rotations, oldest first."""
    return [
        StoredRotation(**row) for row in conn.execute(select(key_rotations).order_by(key_rotations.c.id)).mappings()
    ]
