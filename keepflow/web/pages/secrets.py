"""The secrets of an environment: names, versions, who set them; a value goes in and never comes out."""

from __future__ import annotations

from flask import Blueprint, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from keepflow.web.access import needs
from keepflow.web.answers import deployments
from keepflow.web.api import secrets
from keepflow.web.state import current_project, reading
from keepflow.wire import api

blueprint = Blueprint("secrets", __name__)


@blueprint.get("/projects/<project>/environments/<environment>/secrets")
@needs("secrets")
def list_secrets(project: str, environment: str) -> str:  # noqa: ARG001 - the guard reads the project
    """List the names, with a form that sets one."""
    place = deployments.by_name(reading(), current_project(), environment)
    found = secrets.list_secrets(place.name)
    return render_template(
        "secrets.html", section="projects", tab="environments", project=current_project(), name=place.name, found=found
    )


@blueprint.post("/projects/<project>/environments/<environment>/secrets")
@needs("secrets")
def set_secret(project: str, environment: str) -> AnyResponse:
    """Give a secret a value; the browser's line ends become plain ones."""
    value = request.form.get("value", "").replace("\r\n", "\n")
    secrets.set_secret(environment, request.form.get("name", "")[:200], api.SecretValue(value=value))
    return redirect(url_for("secrets.list_secrets", project=project, environment=environment), 303)


@blueprint.post("/projects/<project>/environments/<environment>/secrets/remove")
@needs("secrets")
def remove_secret(project: str, environment: str) -> AnyResponse:
    """Remove a secret."""
    secrets.remove_secret(environment, request.form.get("name", "")[:200])
    return redirect(url_for("secrets.list_secrets", project=project, environment=environment), 303)
