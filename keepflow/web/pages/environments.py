"""Environments of a project side by side, and the page on which a promote is confirmed."""

from __future__ import annotations

import secrets

from flask import Blueprint, Response, make_response, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from keepflow import errors
from keepflow.engine import promoting
from keepflow.web.access import needs
from keepflow.web.answers import deployments as answers
from keepflow.web.answers import evidence
from keepflow.web.api.delivery import press
from keepflow.web.state import caller, current_project, reading, web
from keepflow.wire import api

blueprint = Blueprint("environments", __name__)


@blueprint.get("/projects/<project>/environments")
@needs("see")
def board(project: str) -> str:  # noqa: ARG001 - the guard reads it
    """Show dev, test, production: what serves, since when, by whom, and what would go live."""
    return render_template("environments.html", **_facts())


@blueprint.get("/projects/<project>/environments/now")
@needs("see")
def board_now(project: str) -> str:  # noqa: ARG001 - the guard reads it
    """Show the part of the board that changes."""
    return render_template("parts/environments.html", **_facts())


def _facts() -> dict[str, object]:
    conn, place = reading(), current_project()
    found = answers.board(conn, place)
    offers = {environment.name: _offer(environment) for environment in found}
    return {
        "section": "projects",
        "tab": "environments",
        "project": place,
        "environments": found,
        "may_promote": answers.presser(conn, caller().user, place).has_role,
        "offers": {name: offer for name, offer in offers.items() if offer is not None},
    }


def _offer(environment: api.Environment) -> api.Preview | None:
    """Say what promoting the newest candidate would do, when there is one that does not serve yet."""
    newest = environment.candidates[0] if environment.candidates else None
    if newest is None or newest.serves:
        return None
    return _preview(environment.name, str(newest.run))


def _preview(environment: str, source: str) -> api.Preview:
    who = answers.presser(reading(), caller().user, current_project())
    return answers.preview(promoting.preview(web().master, current_project().name, environment, source, who))


@blueprint.get("/projects/<project>/environments/<environment>/deployments")
@needs("see")
def history(project: str, environment: str) -> str:  # noqa: ARG001 - the guard reads the project
    """List the deployments of one environment."""
    given = {name: request.args[name] for name in ("before",) if name in request.args}
    page = answers.page(reading(), current_project(), environment, api.PageQuery.model_validate(given))
    return render_template(
        "deployments.html",
        section="projects",
        tab="environments",
        project=current_project(),
        name=environment,
        page=page,
    )


@blueprint.get("/projects/<project>/environments/<environment>/promote")
@needs("see")
def confirm(project: str, environment: str) -> Response:  # noqa: ARG001 - the guard reads the project
    """Show what a promote would do and ask for the environment's name."""
    return _confirm(environment, request.args.get("source", ""), "", secrets.token_hex(16), "", 200)


@blueprint.post("/projects/<project>/environments/<environment>/promote")
@needs("promote")
def promote(project: str, environment: str) -> AnyResponse:
    """Press the button: start the promote and go to the run that carries it out."""
    form = request.form
    source, note, key = form.get("source", ""), form.get("note", "")[:2000], form.get("key", "")
    if form.get("typed", "").strip() != environment:
        wrong = f"type {environment} to confirm that this is the environment you mean"
        return _confirm(environment, source, note, key, wrong, 400)
    try:
        deployment = press(environment, source, note, key)
    except errors.Refused as error:
        return _confirm(environment, source, note, key, error.message, 409)
    with web().master.database.read() as conn:
        run = answers.deployment_by_id(conn, caller().user, deployment).run
    return redirect(url_for("runs.show_run", project=project, number=run), 303)


def _confirm(environment: str, source: str, note: str, key: str, wrong: str, status: int) -> Response:
    preview = _preview(environment, source)
    page = render_template(
        "promote.html",
        section="projects",
        tab="environments",
        project=current_project(),
        preview=preview,
        receipts=evidence.lines(reading(), current_project(), preview.identity),
        environment=answers.by_name(reading(), current_project(), environment),
        source=source,
        note=note,
        key=key,
        wrong=wrong,
    )
    return make_response(page, status)
