"""The secrets of an environment, or of a project for its jobs: who set which; a value goes in and never comes out."""

from __future__ import annotations

from flask import Blueprint, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from keepflow.web.access import needs
from keepflow.web.answers import deployments
from keepflow.web.api import secrets
from keepflow.web.state import current_project, reading
from keepflow.wire import api

blueprint = Blueprint("secrets", __name__)
#: What binds a secret of a project, with what the form says of it.
_BOUND = {
    "branches": "patterns; none: those that reach an environment",
    "tags": "patterns; none: no tags",
    "flows": "names; none: every flow",
    "environments": "names; none: any",
}


@blueprint.get("/projects/<project>/environments/<environment>/secrets")
@needs("secrets")
def list_secrets(project: str, environment: str) -> str:
    """List the names, with a form that sets one."""
    place = deployments.by_name(reading(), current_project(), environment)
    found = secrets.list_secrets(place.name)
    return _page("environments", place.name, f"/projects/{project}/environments/{place.name}/secrets", found, {})


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


@blueprint.get("/projects/<project>/secrets")
@needs("secrets")
def list_job_secrets(project: str) -> str:
    """List the secrets of a project for its jobs, with a form that sets one."""
    return _page("overview", project, f"/projects/{project}/secrets", secrets.list_job_secrets(), _BOUND)


@blueprint.post("/projects/<project>/secrets")
@needs("secrets")
def set_job_secret(project: str) -> AnyResponse:
    """Give a secret of a project a value, and perhaps a new binding."""
    value = request.form.get("value", "").replace("\r\n", "\n")
    given = {kind: request.form.get(kind, "").replace(",", " ").split()[:50] for kind in _BOUND}
    bound = api.NewBinding(**given) if any(given.values()) else None
    secrets.set_job_secret(request.form.get("name", "")[:200], api.JobSecretValue(value=value, bound=bound))
    return redirect(url_for("secrets.list_job_secrets", project=project), 303)


@blueprint.post("/projects/<project>/secrets/remove")
@needs("secrets")
def remove_job_secret(project: str) -> AnyResponse:
    """Remove a secret of a project."""
    secrets.remove_job_secret(request.form.get("name", "")[:200])
    return redirect(url_for("secrets.list_job_secrets", project=project), 303)


def _page(tab: str, name: str, action: str, found: object, bound: dict[str, str]) -> str:
    facts = {"tab": tab, "name": name, "action": action, "found": found, "bound": bound}
    return render_template("secrets.html", section="projects", project=current_project(), **facts)
