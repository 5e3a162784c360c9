"""Releases under quarantine."""

from __future__ import annotations

from keepflow.engine import quarantining
from keepflow.web.answers import deployments, quarantines
from keepflow.web.api.endpoint import Endpoints
from keepflow.web.state import caller, current_project, reading, web
from keepflow.wire import api

endpoints = Endpoints("Quarantine")


@endpoints.add(
    "GET",
    "/projects/<project>/environments/<environment>/quarantine",
    "see",
    api.Quarantines,
    query=api.QuarantineQuery,
)
def quarantine(environment: str, query: api.QuarantineQuery) -> api.Quarantines:
    """List the releases that did badly in an environment and do not go there again."""
    place = deployments.by_name(reading(), current_project(), environment)
    return api.Quarantines(items=quarantines.listed(reading(), place, lifted=query.lifted))


@endpoints.add(
    "POST",
    "/projects/<project>/environments/<environment>/quarantine/lift",
    "promote",
    api.Quarantines,
    body=api.Lift,
)
def lift_quarantine(environment: str, body: api.Lift) -> api.Quarantines:
    """Let a release go to an environment again; the answer is what still stands."""
    lift(environment, body.identity, body.why)
    with web().master.database.read() as conn:
        place = deployments.by_name(conn, current_project(), environment)
        return api.Quarantines(items=quarantines.listed(conn, place, lifted=False))


def lift(environment: str, identity: str, why: str) -> None:
    """Lift as the caller; page and API do the same here."""
    place = deployments.by_name(reading(), current_project(), environment)
    by, now = caller().user.name, web().now()
    web().master.writer.call(lambda tx: quarantining.lift(tx, place, identity, by, why, now))
