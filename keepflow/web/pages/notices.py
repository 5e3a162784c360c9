"""Notices: who is told what, and what did not get through."""

from __future__ import annotations

from flask import Blueprint, render_template, request

from keepflow.web.access import needs
from keepflow.web.answers import notices as answers
from keepflow.web.state import reading, web
from keepflow.wire import api

blueprint = Blueprint("notices", __name__)


@blueprint.get("/notices")
@needs("administer")
def list_notices() -> str:
    """List the channels and what they were told."""
    given = {name: request.args[name] for name in ("before", "state") if name in request.args}
    page = answers.page(reading(), api.NoticesQuery.model_validate(given))
    channels = answers.all_channels(reading(), web().master)
    return render_template("notices.html", section="notices", page=page, channels=channels)
