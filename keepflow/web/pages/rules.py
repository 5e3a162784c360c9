"""The buttons beside the promote: tested, rejected, lock, unlock, open a gate anew, acknowledge broken glass."""

from __future__ import annotations

from flask import Blueprint, redirect, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from keepflow.web.access import needs
from keepflow.web.api import rules
from keepflow.web.state import current_project
from keepflow.wire import api

blueprint = Blueprint("rules", __name__)


@blueprint.post("/projects/<project>/environments/<environment>/mark")
@needs("tested")
def mark(project: str, environment: str) -> AnyResponse:  # noqa: ARG001 - the guard reads the project
    """Mark the deployment that the page showed, or reject it."""
    form = request.form
    said = {name: form.get(name, "") for name in ("verdict", "note", "deployment")}
    rules.say(environment, api.MarkRequest.model_validate(said))
    return _board()


@blueprint.post("/projects/<project>/environments/<environment>/lock")
@needs("lock")
def lock(project: str, environment: str) -> AnyResponse:  # noqa: ARG001 - the guard reads the project
    """Lock the environment."""
    rules.hold(environment, api.LockRequest.model_validate({"why": request.form.get("why", "")}).why)
    return _board()


@blueprint.post("/projects/<project>/environments/<environment>/unlock")
@needs("lock")
def unlock(project: str, environment: str) -> AnyResponse:  # noqa: ARG001 - the guard reads the project
    """Unlock the environment."""
    rules.unlock(environment)
    return _board()


@blueprint.post("/projects/<project>/environments/<environment>/gate")
@needs("promote")
def gate(project: str, environment: str) -> AnyResponse:
    """Open the gate anew and go to the page that asks before the promote."""
    wanted = api.GateRequest.model_validate({"source": request.form.get("source", "")})
    rules.open_gate(environment, wanted)
    page = url_for("environments.confirm", project=project, environment=environment, source=wanted.source)
    return redirect(page, 303)


@blueprint.post("/projects/<project>/break-glass/<int:number>/acknowledge")
@needs("acknowledge")
def acknowledge(project: str, number: int) -> AnyResponse:  # noqa: ARG001 - the guard reads the project
    """Say that a deployment outside the rules was followed up."""
    rules.acknowledge(number)
    return _board()


def _board() -> AnyResponse:
    return redirect(url_for("environments.board", project=current_project().name), 303)
