"""What was done to get hosts ready for a promote, as people and programs see it."""

from __future__ import annotations

from sqlalchemy import Connection

from keepflow.engine import preparing
from keepflow.engine.guarding import Presser
from keepflow.engine.promoting import find_release
from keepflow.errors import NotFound
from keepflow.store import preparations
from keepflow.store.environments import Environment
from keepflow.store.preparations import Preparation
from keepflow.store.projects import Project
from keepflow.web.answers import deployments
from keepflow.wire import api


def readying(conn: Connection, project: Project, place: Environment, source: str, who: Presser) -> api.Readying:
    """Say how ready the hosts of an environment are for a release; raises NotFound and UsageError."""
    stored = find_release(conn, project, source)
    guards = preparing.guards(conn, place, stored, who)
    return api.Readying(
        on_host=preparing.on_host(conn, place, stored),
        hosts=list(place.agents),
        rehearsals=[preparation(place, found) for found in preparing.rehearsed(conn, place, stored)],
        may_rehearse=all(guard.met for guard in guards),
        guards=deployments.guards(guards),
        loses_hot=preparing.loses_hot(place),
    )


def by_id(conn: Connection, place: Environment, preparation_id: str) -> api.Preparation:
    """Return one preparation of an environment; raises NotFound."""
    found = preparations.by_id(conn, preparation_id)
    if found is None or found.environment_id != place.id:
        raise NotFound(f"{place.name} has no such preparation", code="no-preparation")
    return preparation(place, found)


def preparation(place: Environment, found: Preparation) -> api.Preparation:
    """Return one preparation."""
    return api.Preparation(
        id=found.id,
        environment=place.name,
        host=found.host,
        kind=found.kind,
        phase=found.phase,
        reason_code=found.reason_code,
        reason=found.reason,
        identity=found.identity,
        requested_by=found.requested_by,
        receipt=found.receipt,
        log_tail=found.log_tail,
        requested_at=found.requested_at,
        finished_at=found.finished_at,
    )
