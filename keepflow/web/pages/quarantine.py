"""The button that lets a release go to an environment again."""

from __future__ import annotations

from flask import Blueprint, redirect, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from keepflow.web.access import needs
from keepflow.web.api import quarantine

blueprint = Blueprint("quarantine", __name__)


@blueprint.post("/projects/<project>/environments/<environment>/quarantine/lift")
@needs("promote")
def lift(project: str, environment: str) -> AnyResponse:
    """Lift the quarantine of a release and go back to the environments."""
    quarantine.lift(environment, request.form.get("identity", "")[:80], request.form.get("why", "")[:2000])
    return redirect(url_for("environments.board", project=project), 303)
