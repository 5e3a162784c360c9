"""Settings of the master that belong to the database."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, bindparam, delete, select

from keepflow.store.tables import settings
from keepflow.store.upsert import insert

_GET = select(settings.c.value).where(settings.c.key == bindparam("name"))  # built once, asked for every job


def get(conn: Connection, key: str, default: Any = None) -> Any:
    """Return the plain data stored under a key."""
    row = conn.execute(_GET, {"name": key}).first()
    return default if row is None else row.value


def put(conn: Connection, key: str, value: Any) -> None:
    """Store plain data under a key."""
    statement = insert(conn, settings).values(key=key, value=value)
    conn.execute(statement.on_conflict_do_update(index_elements=["key"], set_={"value": statement.excluded.value}))


def drop(conn: Connection, key: str) -> None:
    """Forget a key."""
    conn.execute(delete(settings).where(settings.c.key == key))
