"""Canaries that are under way."""

from __future__ import annotations

from keepflow.engine import canaries
from keepflow.web.answers import deployments
from keepflow.web.api.endpoint import Endpoints
from keepflow.web.state import caller, current_project, reading, web
from keepflow.wire import api

endpoints = Endpoints("Canary")


@endpoints.add(
    "POST",
    "/projects/<project>/environments/<environment>/canary",
    "promote",
    api.Steered,
    body=api.Steering,
    status=202,
)
def steer_canary(environment: str, body: api.Steering) -> api.Steered:
    """Tell a canary to go on with its next step, to stay at this one, or to be put back; the hosts are answered."""
    return api.Steered(hosts=steer(environment, body.word, body.percent))


def steer(environment: str, word: canaries.Word, percent: int | None) -> list[str]:
    """Say a word as the caller; page and API do the same here."""
    place = deployments.by_name(reading(), current_project(), environment)
    master, by, now = web().master, caller().user.name, web().now()
    return master.writer.call(lambda tx: canaries.steer(tx, master, place, word, percent, by, now))
