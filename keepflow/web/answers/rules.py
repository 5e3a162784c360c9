"""Marks, gates, locks and broken glass as people and programs see them."""

from __future__ import annotations

from sqlalchemy import Connection

from keepflow.core.marks import Mark
from keepflow.core.promoting import span
from keepflow.store import breakglass, deployments, environments, gates
from keepflow.store import marks as stored
from keepflow.store.breakglass import BrokenGlass
from keepflow.store.environments import Environment
from keepflow.store.projects import Project
from keepflow.wire import api


def marks(conn: Connection, place: Environment) -> list[api.Mark]:
    """List what testers said of what an environment was last made to serve."""
    current = deployments.newest_current(conn, place.hosts)
    return [mark(made) for made in stored.of_identity(conn, place.id, current.identity)] if current else []


def mark(made: Mark) -> api.Mark:
    """Return one mark."""
    return api.Mark(
        person=made.person,
        verdict=made.verdict.value,
        note=made.note,
        deployment=made.deployment,
        identity=made.identity,
        at=made.at,
    )


def gate(conn: Connection, project: Project, place: Environment) -> api.Gate | None:
    """Return the release that waits at an environment's gate, or None."""
    found = gates.open_one(conn, place.id)
    if found is None:
        return None
    return api.Gate(
        run=found.gate.run,
        identity=found.identity,
        sentence=f"{project.name}#{found.gate.run} {found.reason}",
        opened_at=found.opened_at,
        lapses_at=found.gate.lapses_at,
    )


def lapses_in(lapses_at: int, now: int) -> str:
    """Say how long an open gate still waits."""
    return span(max(0, lapses_at - now) / 1_000_000)


def lock(place: Environment) -> api.Lock:
    """Return who holds an environment still."""
    return api.Lock(locked_by=place.locked_by, locked_why=place.locked_why, locked_at=place.locked_at)


def unacknowledged(conn: Connection, project: Project) -> list[api.BrokenGlass]:
    """List the broken glass of a project that nobody has followed up yet."""
    return [broken(conn, found) for found in breakglass.still_open(conn, project.id)]


def broken(conn: Connection, found: BrokenGlass) -> api.BrokenGlass:
    """Return one deployment outside the rules."""
    return api.BrokenGlass(
        number=found.id,
        environment=environments.by_id(conn, found.environment_id).name,
        deployment=found.deployment_id,
        actor=found.actor,
        reason=found.reason,
        overridden=[api.Overridden(code=rule["code"], sentence=rule["sentence"]) for rule in found.overridden],
        at=found.at,
        acknowledged_by=found.acknowledged_by,
        acknowledged_at=found.acknowledged_at,
    )
