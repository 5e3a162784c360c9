"""The buttons of a canary that is under way."""

from __future__ import annotations

from flask import Blueprint, redirect, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from keepflow.web.access import needs
from keepflow.web.api import canary
from keepflow.wire import api

blueprint = Blueprint("canary", __name__)


@blueprint.post("/projects/<project>/environments/<environment>/canary")
@needs("promote")
def steer(project: str, environment: str) -> AnyResponse:
    """Say a word to a canary and go back to the environments."""
    form = api.Steering.model_validate(
        {name: request.form[name] for name in ("word", "percent") if name in request.form}
    )
    canary.steer(environment, form.word, form.percent)
    return redirect(url_for("environments.board", project=project), 303)
