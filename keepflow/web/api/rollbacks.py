"""Rollbacks: what going back would do, and the press of the button."""

from __future__ import annotations

from keepflow.engine import rolling_back
from keepflow.web.answers import deployments as answers
from keepflow.web.api.endpoint import Endpoints
from keepflow.web.api.pressing import placed
from keepflow.web.state import caller, current_project, web
from keepflow.wire import api

endpoints = Endpoints("Rollbacks")


@endpoints.add(
    "GET",
    "/projects/<project>/environments/<environment>/rollback",
    "see",
    api.RollbackPreview,
    query=api.RollbackQuery,
)
def rollback_preview(environment: str, query: api.RollbackQuery) -> api.RollbackPreview:
    """Say what a rollback would do: every guard, the commits that would go away, how ready the host is."""
    return look(environment, query.source)


@endpoints.add(
    "POST",
    "/projects/<project>/environments/<environment>/rollbacks",
    "rollback",
    api.Deployment,
    body=api.Rollback,
    status=202,
)
def rollback(environment: str, body: api.Rollback) -> api.Deployment:
    """Go back to a release that served here before; the answer is the deployment that was started."""
    started = press(environment, body.source, body.reason, body.key)
    with web().master.database.read() as conn:
        return answers.deployment_by_id(conn, caller().user, started)


def look(environment: str, source: str) -> api.RollbackPreview:
    """Say what a rollback would do; page and API show the same."""
    place, who = placed(environment)
    return answers.rollback_preview(rolling_back.preview(web().master, current_project(), place, source, who))


def press(environment: str, source: str, reason: str, key: str | None) -> str:
    """Press the button as the caller and return the deployment's id; page and API do the same here."""
    master, now, project = web().master, web().now(), current_project()
    place, who = placed(environment)
    return master.writer.call(
        lambda tx: rolling_back.rollback(
            tx,
            master,
            project=project,
            environment=place,
            source=source,
            presser=who,
            note=reason,
            key=key,
            now=now,
        )
    )
