"""The button that rehearses a promote."""

from __future__ import annotations

from flask import Blueprint, redirect, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from keepflow.web.access import needs
from keepflow.web.api.rehearsals import press

blueprint = Blueprint("rehearsals", __name__)


@blueprint.post("/projects/<project>/environments/<environment>/rehearsals")
@needs("promote")
def rehearse(project: str, environment: str) -> AnyResponse:
    """Start a rehearsal and go back to the page of the promote, which shows how it goes."""
    source = request.form.get("source", "")[:120]
    press(environment, source, request.form.get("key") or None)
    return redirect(url_for("environments.confirm", project=project, environment=environment, source=source), 303)
