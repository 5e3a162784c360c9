"""The buttons of a drifting environment: adopt, restore."""

from __future__ import annotations

from flask import Blueprint, abort, redirect, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from keepflow.web.access import needs
from keepflow.web.answers import deployments as answers
from keepflow.web.api.drift import press
from keepflow.web.state import caller, web

blueprint = Blueprint("drift", __name__)


@blueprint.post("/projects/<project>/environments/<environment>/drift")
@needs("rollback")
def mend(project: str, environment: str) -> AnyResponse:
    """Start what was chosen and go to the run that carries it out."""
    way = request.form.get("way", "")
    if way not in ("adopt", "restore"):
        abort(400)
    started = press(environment, way, request.form.get("reason", "")[:2000], request.form.get("key") or None)
    with web().master.database.read() as conn:
        run = answers.deployment_by_id(conn, caller().user, started).run
    return redirect(url_for("runs.show_run", project=project, number=run), 303)
