"""Queries of environments: where releases serve, and on which hosts."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import Connection, Select, insert, select, update
from sqlalchemy.exc import NoResultFound

from keepflow.core.deploys import Overrides, overrides_from_json
from keepflow.core.rules import Rules
from keepflow.core.rules import from_json as rules_from_json
from keepflow.store import placements
from keepflow.store.placements import Placement
from keepflow.store.tables import environments


@dataclass(frozen=True, slots=True)
class Environment:
    """One place of a project where releases serve, on one host or several.

    `max_unavailable` hosts are switched at once; `on_failure` says what becomes of the hosts that were switched before
    one failed: `revert` or `stop`.
    """

    id: int
    project_id: int
    name: str
    position: int
    service: str
    instance: str
    base_id: int | None
    ref: str
    idle: int
    branches: tuple[str, ...]
    overrides: Overrides
    promote_from: str | None
    verified_by: tuple[str, ...]
    approved_by: tuple[str, ...]
    rules: Rules
    url: str
    max_unavailable: int
    on_failure: str
    locked_by: str | None
    locked_why: str | None
    locked_at: int | None
    managed: bool
    removed_at: int | None
    hosts: tuple[Placement, ...]

    @property
    def removed(self) -> bool:
        """Whether it was taken off the board."""
        return self.removed_at is not None

    @property
    def agents(self) -> tuple[str, ...]:
        """The names of its hosts' agents, in the order in which they are switched."""
        return tuple(host.host for host in self.hosts)

    def host(self, name: str) -> Placement | None:
        """Return one of its hosts by the name of the agent, or None."""
        return next((found for found in self.hosts if found.host == name), None)


def of_project(conn: Connection, project_id: int) -> list[Environment]:
    """List the environments of a project in the order of the board."""
    query = select(environments).where(environments.c.project_id == project_id, environments.c.removed_at.is_(None))
    return _read(conn, query.order_by(environments.c.position, environments.c.id))


def by_name(conn: Connection, project_id: int, name: str) -> Environment | None:
    """Return one environment by its name, or None."""
    return next((found for found in of_project(conn, project_id) if found.name == name), None)


def by_id(conn: Connection, environment_id: int) -> Environment:
    """Return one environment, removed or not; raises NoResultFound for an id that never was."""
    found = _read(conn, select(environments).where(environments.c.id == environment_id))
    if not found:
        raise NoResultFound(f"no environment has the row id {environment_id}")
    return found[0]


def base_of(conn: Connection, environment: Environment) -> Environment:
    """Return the environment that a branch's instance belongs to; any other is its own."""
    return environment if environment.base_id is None else by_id(conn, environment.base_id)


def with_instances(conn: Connection) -> list[Environment]:
    """List the instances of branches, of all projects."""
    query = select(environments).where(environments.c.base_id.is_not(None), environments.c.removed_at.is_(None))
    return _read(conn, query.order_by(environments.c.id))


def put(conn: Connection, project_id: int, name: str, now: int, values: dict[str, Any]) -> int:
    """Add an environment or change an existing one to these column values; a removed one of that name comes back."""
    key = (environments.c.project_id == project_id) & (environments.c.name == name)
    found = conn.execute(select(environments.c.id).where(key)).scalar()
    if found is not None:
        conn.execute(update(environments).where(key).values(removed_at=None, **values))
        return int(found)
    row = {"project_id": project_id, "name": name, "created_at": now, **values}
    return int(conn.execute(insert(environments).values(**row).returning(environments.c.id)).scalar_one())


def remove(conn: Connection, environment_id: int, now: int) -> None:
    """Take an environment off the board; its deployments stay."""
    conn.execute(update(environments).where(environments.c.id == environment_id).values(removed_at=now))


def _read(conn: Connection, query: Select[Any]) -> list[Environment]:
    rows = conn.execute(query).mappings().all()
    hosts = placements.of_environments(conn, [row["id"] for row in rows]) if rows else {}
    return [_environment({**row, "hosts": hosts.get(row["id"], ())}) for row in rows]


def set_lock(conn: Connection, environment_id: int, by: str | None, why: str | None, at: int | None) -> None:
    """Lock an environment in somebody's name, or (None) unlock it."""
    values = {"locked_by": by, "locked_why": why, "locked_at": at}
    conn.execute(update(environments).where(environments.c.id == environment_id).values(**values))


def promoted_from(conn: Connection, source: Environment) -> list[Environment]:
    """List the environments of a project that take what served in this one."""
    return [found for found in of_project(conn, source.project_id) if found.promote_from == source.name]


def _environment(row: dict[str, Any]) -> Environment:
    values = {field.name: row[field.name] for field in fields(Environment)}
    lists = {name: tuple(row[name]) for name in ("branches", "verified_by", "approved_by")}
    read = {"overrides": overrides_from_json(row["overrides"]), "rules": rules_from_json(row["rules"])}
    return Environment(**{**values, **lists, **read})
