"""Deployments whose end nobody knows, settled by hand."""

from __future__ import annotations

from keepflow.engine import settling
from keepflow.engine.settling import Serves
from keepflow.web.answers import deployments
from keepflow.web.api.endpoint import Endpoints
from keepflow.web.state import caller, current_project, reading, web
from keepflow.wire import api

endpoints = Endpoints("Settling")


@endpoints.add(
    "POST", "/projects/<project>/environments/<environment>/settle", "rollback", api.Deployment, body=api.Settlement
)
def settle_deployment(environment: str, body: api.Settlement) -> api.Deployment:
    """Say how a deployment ended whose end is unknown; the host is only asked for its word."""
    settled = settle(environment, body.host, body.serves, body.why)
    with web().master.database.read() as conn:
        return deployments.deployment_by_id(conn, caller().user, settled)


def settle(environment: str, host: str, serves: Serves, why: str) -> str:
    """Settle as the caller and return the deployment's id; page and API do the same here."""
    place = deployments.by_name(reading(), current_project(), environment)
    master, by, now = web().master, caller().user.name, web().now()
    return master.writer.call(lambda tx: settling.settle(tx, master, place, host, serves, why, by, now)).id
