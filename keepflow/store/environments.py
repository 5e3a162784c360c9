"""Queries of environments: where releases serve, and what was last seen serving."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import Connection, RowMapping, insert, select, update

from keepflow.core.deploys import Overrides, overrides_from_json
from keepflow.store.tables import environments


@dataclass(frozen=True, slots=True)
class Environment:
    """One place of a project where releases serve; `current_id` is its last done deployment."""

    id: int
    project_id: int
    name: str
    position: int
    agent: str
    service: str
    branches: tuple[str, ...]
    overrides: Overrides
    promote_from: str | None
    verified_by: tuple[str, ...]
    approved_by: tuple[str, ...]
    url: str
    current_id: str | None
    observed: dict[str, Any] | None
    locked_by: str | None
    locked_why: str | None
    managed: bool


def of_project(conn: Connection, project_id: int) -> list[Environment]:
    """List the environments of a project in the order of the board."""
    query = select(environments).where(environments.c.project_id == project_id, environments.c.removed_at.is_(None))
    rows = conn.execute(query.order_by(environments.c.position, environments.c.id)).mappings()
    return [_environment(row) for row in rows]


def by_name(conn: Connection, project_id: int, name: str) -> Environment | None:
    """Return one environment by its name, or None."""
    return next((found for found in of_project(conn, project_id) if found.name == name), None)


def by_id(conn: Connection, environment_id: int) -> Environment:
    """Return one environment, removed or not; raises NoResultFound for an id that never was."""
    row = conn.execute(select(environments).where(environments.c.id == environment_id)).mappings().one()
    return _environment(row)


def of_service(conn: Connection, agent: str, service: str) -> Environment | None:
    """Return the environment that one agent's service belongs to, or None."""
    query = select(environments).where(
        environments.c.agent == agent, environments.c.service == service, environments.c.removed_at.is_(None)
    )
    row = conn.execute(query).mappings().first()
    return _environment(row) if row else None


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


def set_current(conn: Connection, environment_id: int, deployment_id: str) -> None:
    """Record the deployment that made the environment serve what it serves now."""
    conn.execute(update(environments).where(environments.c.id == environment_id).values(current_id=deployment_id))


def observe(conn: Connection, environment_id: int, seen: dict[str, Any]) -> None:
    """Record what the agent says is serving."""
    conn.execute(update(environments).where(environments.c.id == environment_id).values(observed=seen))


def _environment(row: RowMapping) -> Environment:
    values = {field.name: row[field.name] for field in fields(Environment)}
    lists = {name: tuple(row[name]) for name in ("branches", "verified_by", "approved_by")}
    return Environment(**{**values, **lists, "overrides": overrides_from_json(row["overrides"])})
