"""Drift of an environment: adopt what serves, or restore what was deployed."""

from __future__ import annotations

from keepflow.engine import drifting, observing
from keepflow.web.answers import deployments as answers
from keepflow.web.api.endpoint import Endpoints
from keepflow.web.api.pressing import placed
from keepflow.web.state import caller, current_project, reading, web
from keepflow.wire import api

endpoints = Endpoints("Drift")


@endpoints.add("GET", "/projects/<project>/environments/<environment>/drift", "see", api.Drift)
def drift(environment: str) -> api.Drift:
    """Say how what serves differs from what was deployed, host by host."""
    place = answers.by_name(reading(), current_project(), environment)
    hosts = [
        api.HostDrift(
            agent=host.host,
            differences=[
                api.Difference(what=one.what, expected=one.expected, found=one.found)
                for one in observing.differences(reading(), host)
            ],
        )
        for host in place.hosts
    ]
    return api.Drift(environment=place.name, drifts=any(host.differences for host in hosts), hosts=hosts)


@endpoints.add(
    "POST",
    "/projects/<project>/environments/<environment>/drift",
    "rollback",
    api.Deployment,
    body=api.MendDrift,
    status=202,
)
def mend_drift(environment: str, body: api.MendDrift) -> api.Deployment:
    """Adopt what serves as the expected release, or restore what was deployed; the answer is the deployment started."""
    started = press(environment, body.way, body.reason, body.key)
    with web().master.database.read() as conn:
        return answers.deployment_by_id(conn, caller().user, started)


def press(environment: str, way: str, reason: str, key: str | None) -> str:
    """Press the button as the caller and return the deployment's id; page and API do the same here."""
    master, now = web().master, web().now()
    place, who = placed(environment)
    act = drifting.adopt if way == "adopt" else drifting.restore
    return master.writer.call(lambda tx: act(tx, master, environment=place, presser=who, note=reason, key=key, now=now))
