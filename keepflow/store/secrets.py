"""Secrets of environments and of projects: the newest value of each name, sealed; never a value in the clear."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, RowMapping, Table, bindparam, select, update

from keepflow.store.tables import environment_secrets, project_secrets
from keepflow.store.upsert import insert


@dataclass(frozen=True, slots=True)
class StoredSecret:
    """One name at one owner; `sealed` is None when it was removed. Versions of a name only ever rise."""

    owner_id: int  #: row id of the environment or project
    name: str
    version: int
    sealed: bytes | None = field(repr=False)
    size: int  #: bytes of the value
    set_by: str
    at: int
    removed_at: int | None = None
    binding: dict[str, Any] | None = None  #: of a project's: which runs may have it


class Shelf:
    """The secrets of one kind of owner."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._owner = next(iter(table.primary_key.columns)).name
        # Built once: every log and every job asks this, and building costs more than asking.
        self._every = select(table).where(table.c[self._owner] == bindparam("owner")).order_by(table.c.name)

    def every(self, conn: Connection, owner_id: int) -> list[StoredSecret]:
        """List the names of an owner in order, removed ones too."""
        return [self._secret(row) for row in conn.execute(self._every, {"owner": owner_id}).mappings()]

    def held(self, conn: Connection, owner_id: int) -> dict[str, StoredSecret]:
        """Return the secrets that have a value, by name."""
        return {one.name: one for one in self.every(conn, owner_id) if one.sealed is not None}

    def put(self, conn: Connection, secret: StoredSecret) -> None:
        """Write a version down; the one before is gone."""
        columns = [column.name for column in self._table.columns if column.name != self._owner]
        values = {self._owner: secret.owner_id, **{name: getattr(secret, name) for name in columns}}
        key = (self._owner, "name")
        changed = {name: value for name, value in values.items() if name not in key}
        statement = insert(conn, self._table).values(**values)
        conn.execute(statement.on_conflict_do_update(index_elements=key, set_=changed))

    def remove(self, conn: Connection, owner_id: int, name: str, by: str, now: int) -> None:
        """Take the value away; the name keeps its version, so that a later value gets a higher one."""
        key = (self._table.c[self._owner] == owner_id) & (self._table.c.name == name)
        values = {"sealed": None, "size": 0, "set_by": by, "removed_at": now}
        conn.execute(update(self._table).where(key).values(**values))

    def _secret(self, row: RowMapping) -> StoredSecret:
        return StoredSecret(row[self._owner], **{name: row[name] for name in row if name != self._owner})


of_environments = Shelf(environment_secrets)
of_projects = Shelf(project_secrets)
