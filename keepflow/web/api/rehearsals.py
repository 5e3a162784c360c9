"""Getting ready for a promote: what lies on the hosts already, and rehearsals."""

from __future__ import annotations

from keepflow.engine import preparing
from keepflow.web.answers import deployments as answers
from keepflow.web.answers import preparations
from keepflow.web.api.endpoint import Endpoints
from keepflow.web.api.pressing import placed
from keepflow.web.state import current_project, reading, web
from keepflow.wire import api

endpoints = Endpoints("Rehearsals")


@endpoints.add(
    "GET",
    "/projects/<project>/environments/<environment>/readiness",
    "see",
    api.Readying,
    query=api.PreviewQuery,
)
def readying(environment: str, query: api.PreviewQuery) -> api.Readying:
    """Say how ready the hosts are for a release: which have its image, what its rehearsals said."""
    return look(environment, query.source)


@endpoints.add(
    "POST",
    "/projects/<project>/environments/<environment>/rehearsals",
    "promote",
    api.Preparation,
    body=api.Rehearsal,
    status=202,
)
def rehearse(environment: str, body: api.Rehearsal) -> api.Preparation:
    """Start a release in the idle slot of every host, gate it and take it away; no visitor sees it."""
    started = press(environment, body.source, body.key)
    place = answers.by_name(reading(), current_project(), environment)
    with web().master.database.read() as conn:
        return preparations.by_id(conn, place, started)


def look(environment: str, source: str) -> api.Readying:
    """Say how ready the hosts are; page and API show the same."""
    place, who = placed(environment)
    return preparations.readying(reading(), current_project(), place, source, who)


def press(environment: str, source: str, key: str | None) -> str:
    """Press the button as the caller and return the preparation's id; page and API do the same here."""
    master, now = web().master, web().now()
    place, who = placed(environment)
    return master.writer.call(
        lambda tx: preparing.rehearse(tx, master, environment=place, source=source, presser=who, key=key, now=now)
    )
