"""Environments, promotions and deployments."""

from __future__ import annotations

from keepflow.engine import advice, promoting
from keepflow.errors import UsageError
from keepflow.web.answers import deployments as answers
from keepflow.web.api.endpoint import Endpoints
from keepflow.web.state import caller, current_project, reading, web
from keepflow.wire import api

endpoints = Endpoints("Delivery")


@endpoints.add("GET", "/projects/<project>/environments", "see", api.Environments)
def environments() -> api.Environments:
    """List the environments of a project: what serves, since when, by whom, and what could be promoted."""
    conn, project = reading(), current_project()
    return api.Environments(items=answers.board(conn, project), warnings=advice.of_project(conn, project.id))


@endpoints.add(
    "GET",
    "/projects/<project>/environments/<environment>/deployments",
    "see",
    api.DeploymentPage,
    query=api.PageQuery,
)
def deployments(environment: str, query: api.PageQuery) -> api.DeploymentPage:
    """List the deployments of an environment, newest first."""
    return answers.page(reading(), current_project(), environment, query)


@endpoints.add(
    "GET",
    "/projects/<project>/environments/<environment>/preview",
    "see",
    api.Preview,
    query=api.PreviewQuery,
)
def preview(environment: str, query: api.PreviewQuery) -> api.Preview:
    """Say what promoting a run or digest would do: every guard, the commits, the settings that change."""
    who = answers.presser(reading(), caller().user, current_project())
    name, now = current_project().name, web().now()
    return answers.preview(
        promoting.preview(web().master, name, environment, query.source, who, now, rollback=query.rollback)
    )


@endpoints.add(
    "POST",
    "/projects/<project>/environments/<environment>/promotions",
    "promote",
    api.Deployment,
    body=api.Promotion,
    status=202,
)
def promote(environment: str, body: api.Promotion) -> api.Deployment:
    """Promote a tested release; the answer is the deployment that was started."""
    if (body.run is None) == (body.identity is None):
        raise UsageError("name either a run or an identity", code="one-source")
    source = str(body.run) if body.run is not None else str(body.identity)
    said = promoting.Said(
        body.note, body.rollback, body.break_glass, body.serving, body.key, tuple(body.canary), body.hold
    )
    started = press(environment, source, said)
    with web().master.database.read() as conn:
        return answers.deployment_by_id(conn, caller().user, started)


def press(environment: str, source: str, said: promoting.Said) -> str:
    """Press the button as the caller and return the deployment's id; page and API do the same here."""
    master, now, name = web().master, web().now(), current_project().name
    who = answers.presser(reading(), caller().user, current_project())
    seen = promoting.look(master, name, environment, source)
    return master.writer.call(
        lambda tx: promoting.promote(
            tx, master, project=name, to=environment, source=source, presser=who, said=said, seen=seen, now=now
        )
    )


@endpoints.add("GET", "/deployments/<deployment>/receipt", "enter", api.DeploymentReceipt)
def deployment_receipt(deployment: str) -> api.DeploymentReceipt:
    """Return the receipt of a deployment with its agent's signature, as it came, and whether it was good."""
    return answers.receipt(reading(), caller().user, deployment)


@endpoints.add("GET", "/deployments/<deployment>", "enter", api.Deployment)
def deployment(deployment: str) -> api.Deployment:
    """Show one deployment with its phases and its receipt."""
    return answers.deployment_by_id(reading(), caller().user, deployment)
