"""Secrets of environments: the newest value of each name, sealed; never a value in the clear."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from sqlalchemy import Connection, select, update

from keepflow.store.tables import environment_secrets
from keepflow.store.upsert import insert


@dataclass(frozen=True, slots=True)
class StoredSecret:
    """One name in one environment; `sealed` is None when it was removed. Versions of a name only ever rise."""

    environment_id: int
    name: str
    version: int
    sealed: bytes | None = field(repr=False)
    size: int  #: bytes of the value
    set_by: str
    at: int
    removed_at: int | None


def every(conn: Connection, environment_id: int) -> list[StoredSecret]:
    """List the names of an environment in order, removed ones too."""
    query = select(environment_secrets).where(environment_secrets.c.environment_id == environment_id)
    rows = conn.execute(query.order_by(environment_secrets.c.name)).mappings()
    return [StoredSecret(**{one.name: row[one.name] for one in fields(StoredSecret)}) for row in rows]


def held(conn: Connection, environment_id: int) -> dict[str, StoredSecret]:
    """Return the secrets that have a value, by name."""
    return {one.name: one for one in every(conn, environment_id) if one.sealed is not None}


def put(conn: Connection, secret: StoredSecret) -> None:
    """Write a version down; the one before is gone."""
    values = {one.name: getattr(secret, one.name) for one in fields(StoredSecret)}
    key = ("environment_id", "name")
    statement = insert(conn, environment_secrets).values(**values)
    changed = {name: value for name, value in values.items() if name not in key}
    conn.execute(statement.on_conflict_do_update(index_elements=key, set_=changed))


def remove(conn: Connection, environment_id: int, name: str, by: str, now: int) -> None:
    """Take the value away; the name keeps its version, so that a later value gets a higher one."""
    key = (environment_secrets.c.environment_id == environment_id) & (environment_secrets.c.name == name)
    values = {"sealed": None, "size": 0, "set_by": by, "removed_at": now}
    conn.execute(update(environment_secrets).where(key).values(**values))
