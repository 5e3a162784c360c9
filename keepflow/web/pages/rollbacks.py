"""The page on which a rollback is confirmed: what goes away, how ready the host is, one button."""

from __future__ import annotations

import secrets

from flask import Blueprint, Response, make_response, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from keepflow import errors
from keepflow.web.access import needs
from keepflow.web.answers import deployments as answers
from keepflow.web.api.rollbacks import look, press
from keepflow.web.state import caller, current_project, reading, web

blueprint = Blueprint("rollbacks", __name__)


@blueprint.get("/projects/<project>/environments/<environment>/rollback")
@needs("see")
def confirm(project: str, environment: str) -> Response:  # noqa: ARG001 - the guard reads the project
    """Show what a rollback would do."""
    return _confirm(environment, request.args.get("source", ""), "", secrets.token_hex(16), "", 200)


@blueprint.post("/projects/<project>/environments/<environment>/rollback")
@needs("rollback")
def rollback(project: str, environment: str) -> AnyResponse:
    """Press the button: start the rollback and go to the run that carries it out."""
    form = request.form
    source, reason, key = form.get("source", ""), form.get("reason", "")[:2000], form.get("key", "")
    try:
        deployment = press(environment, source, reason, key)
    except errors.Refused as error:
        return _confirm(environment, source, reason, key, error.message, 409)
    with web().master.database.read() as conn:
        run = answers.deployment_by_id(conn, caller().user, deployment).run
    return redirect(url_for("runs.show_run", project=project, number=run), 303)


def _confirm(environment: str, source: str, reason: str, key: str, wrong: str, status: int) -> Response:
    page = render_template(
        "rollback.html",
        section="projects",
        tab="environments",
        project=current_project(),
        preview=look(environment, source),
        environment=answers.by_name(reading(), current_project(), environment),
        source=source,
        reason=reason,
        key=key,
        wrong=wrong,
    )
    return make_response(page, status)
