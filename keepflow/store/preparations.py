"""Queries of preparations: images laid on hosts ahead of a promote, rehearsals, and removals of branches' instances."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import Connection, RowMapping, insert, select, update

from keepflow.core.states import OUTCOMES, Phase
from keepflow.store.tables import preparations

STAGE, REHEARSAL, REMOVAL = "stage", "rehearsal", "removal"
_LIVE = tuple(phase.value for phase in Phase if phase not in OUTCOMES)


@dataclass(frozen=True, slots=True)
class Preparation:
    """One try on one host."""

    id: str
    environment_id: int
    release_id: int
    host: str
    kind: str
    phase: Phase
    reason_code: str
    reason: str
    requested_by: str
    agent_id: int | None
    fence: int | None
    description: dict[str, Any]
    description_hash: str
    identity: str
    receipt: dict[str, Any] | None
    log_tail: str
    requested_at: int
    finished_at: int | None


def add(conn: Connection, values: dict[str, Any]) -> None:
    """Add one; its id is made by the asker."""
    conn.execute(insert(preparations).values(**values))


def by_id(conn: Connection, preparation_id: str) -> Preparation | None:
    """Return one, or None."""
    return next(iter(_listed(conn, preparations.c.id == preparation_id, 1)), None)


def waiting(conn: Connection, host: str) -> list[Preparation]:
    """List those whose order a host was not sent yet, newest first."""
    return _listed(conn, (preparations.c.host == host) & (preparations.c.phase == Phase.QUEUED.value), 50)


def live(conn: Connection, environment_id: int, kind: str) -> list[Preparation]:
    """List those of an environment that have not ended, newest first."""
    of_it = (preparations.c.environment_id == environment_id) & (preparations.c.kind == kind)
    return _listed(conn, of_it & preparations.c.phase.in_(_LIVE), 50)


def newest(conn: Connection, environment_id: int, kind: str) -> Preparation | None:
    """Return the one of an environment that was asked for last."""
    of_it = (preparations.c.environment_id == environment_id) & (preparations.c.kind == kind)
    return next(iter(_listed(conn, of_it, 1)), None)


def of_release(conn: Connection, environment_id: int, identity: str) -> list[Preparation]:
    """List those of one release in an environment, newest first."""
    of_it = (preparations.c.environment_id == environment_id) & (preparations.c.identity == identity)
    return _listed(conn, of_it, 50)


def move(conn: Connection, preparation: Preparation, phase: Phase, values: dict[str, Any]) -> None:
    """Change one; what has ended stays as it ended."""
    key = (preparations.c.id == preparation.id) & preparations.c.phase.in_(_LIVE)
    conn.execute(update(preparations).where(key).values(phase=phase.value, **values))


def _listed(conn: Connection, condition: Any, limit: int) -> list[Preparation]:
    query = select(preparations).where(condition).order_by(preparations.c.requested_at.desc(), preparations.c.host)
    return [_preparation(row) for row in conn.execute(query.limit(limit)).mappings()]


def _preparation(row: RowMapping) -> Preparation:
    values = {field.name: row[field.name] for field in fields(Preparation)}
    return Preparation(**{**values, "phase": Phase(row["phase"])})
