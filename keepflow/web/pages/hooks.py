"""The button that has a forge asked for the webhook of a project again."""

from __future__ import annotations

from flask import Blueprint, redirect, url_for
from werkzeug.wrappers import Response as AnyResponse

from keepflow.web.access import needs
from keepflow.web.api import hooks

blueprint = Blueprint("hooks", __name__)


@blueprint.post("/hooks-at-forges/<int:number>/again")
@needs("administer")
def again(number: int) -> AnyResponse:
    """Ask the forge again and go back to the project."""
    project = hooks.again(number).project
    return redirect(url_for("board.show_project", project=project), 303)
