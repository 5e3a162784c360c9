"""Queries of quarantines: releases that did badly and do not go there again until somebody says so."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import Connection, insert, select, update

from keepflow.store.tables import quarantines


@dataclass(frozen=True, slots=True)
class Quarantine:
    """One release in one environment, and the deployment that brought it here; lifted or not."""

    id: int
    environment_id: int
    identity: str
    deployment_id: str
    code: str
    sentence: str
    at: int
    lifted_by: str | None
    lifted_why: str
    lifted_at: int | None


def add(conn: Connection, values: dict[str, Any]) -> None:
    """Put a release under quarantine."""
    conn.execute(insert(quarantines).values(**values))


def standing(conn: Connection, environment_id: int, identity: str | None = None) -> list[Quarantine]:
    """List the quarantines that are not lifted, newest first, of one release when it is named."""
    query = select(quarantines).where(quarantines.c.environment_id == environment_id, quarantines.c.lifted_at.is_(None))
    if identity is not None:
        query = query.where(quarantines.c.identity == identity)
    return _listed(conn, query)


def of_environment(conn: Connection, environment_id: int, limit: int) -> list[Quarantine]:
    """List the quarantines of an environment, lifted or not, newest first."""
    return _listed(conn, select(quarantines).where(quarantines.c.environment_id == environment_id).limit(limit))


def lift(conn: Connection, found: list[Quarantine], by: str, why: str, now: int) -> None:
    """Lift quarantines that stand."""
    key = quarantines.c.id.in_([one.id for one in found]) & quarantines.c.lifted_at.is_(None)
    conn.execute(update(quarantines).where(key).values(lifted_by=by, lifted_why=why, lifted_at=now))


def _listed(conn: Connection, query: Any) -> list[Quarantine]:
    rows = conn.execute(query.order_by(quarantines.c.id.desc())).mappings()
    return [Quarantine(**{field.name: row[field.name] for field in fields(Quarantine)}) for row in rows]
