"""Queries of broken glass: deployments outside the rules, each open until somebody else acknowledged it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, RowMapping, insert, select, update

from keepflow.store.tables import break_glass


@dataclass(frozen=True, slots=True)
class BrokenGlass:
    """One deployment outside the rules; `overridden` holds code and sentence of each rule that was not kept."""

    id: int
    project_id: int
    environment_id: int
    deployment_id: str
    actor: str
    reason: str
    overridden: list[dict[str, Any]]
    acknowledged_by: str | None
    acknowledged_at: int | None
    at: int


def add(
    conn: Connection,
    *,
    project_id: int,
    environment_id: int,
    deployment_id: str,
    actor: str,
    reason: str,
    overridden: Sequence[dict[str, str]],
    at: int,
) -> None:
    """Write down that somebody deployed outside the rules."""
    conn.execute(
        insert(break_glass).values(
            project_id=project_id,
            environment_id=environment_id,
            deployment_id=deployment_id,
            actor=actor,
            reason=reason,
            overridden=list(overridden),
            at=at,
        )
    )


def still_open(conn: Connection, project_id: int) -> list[BrokenGlass]:
    """List what nobody has acknowledged yet in a project, oldest first."""
    query = select(break_glass).where(break_glass.c.project_id == project_id, break_glass.c.acknowledged_at.is_(None))
    return [_broken(row) for row in conn.execute(query.order_by(break_glass.c.id)).mappings()]


def by_id(conn: Connection, project_id: int, number: int) -> BrokenGlass | None:
    """Return one of a project, or None."""
    return _one(conn, (break_glass.c.id == number) & (break_glass.c.project_id == project_id))


def of_deployments(conn: Connection, deployment_ids: Sequence[str]) -> BrokenGlass | None:
    """Return what was broken for any of these deployments, or None."""
    return _one(conn, break_glass.c.deployment_id.in_(deployment_ids))


def acknowledge(conn: Connection, number: int, by: str, now: int) -> bool:
    """Write down who followed it up; say whether nobody had before."""
    key = (break_glass.c.id == number) & break_glass.c.acknowledged_at.is_(None)
    return conn.execute(update(break_glass).where(key).values(acknowledged_by=by, acknowledged_at=now)).rowcount == 1


def _one(conn: Connection, condition: ColumnElement[bool]) -> BrokenGlass | None:
    row = conn.execute(select(break_glass).where(condition)).mappings().first()
    return _broken(row) if row else None


def _broken(row: RowMapping) -> BrokenGlass:
    return BrokenGlass(**row)
