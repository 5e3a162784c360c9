"""Quarantines as people and programs see them."""

from __future__ import annotations

from sqlalchemy import Connection

from keepflow.store import quarantines
from keepflow.store.environments import Environment
from keepflow.wire import api

SHOWN = 200


def listed(conn: Connection, environment: Environment, *, lifted: bool) -> list[api.Quarantine]:
    """List the quarantines of an environment, newest first, those that were lifted only when wanted."""
    found = (
        quarantines.of_environment(conn, environment.id, SHOWN)
        if lifted
        else quarantines.standing(conn, environment.id)
    )
    return [
        api.Quarantine(
            identity=one.identity,
            deployment=one.deployment_id,
            code=one.code,
            sentence=one.sentence,
            at=one.at,
            lifted_by=one.lifted_by,
            lifted_why=one.lifted_why,
            lifted_at=one.lifted_at,
        )
        for one in found
    ]
