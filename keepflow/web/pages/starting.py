"""The page on which a person starts a flow by hand: the flows of a branch, and a form made of their inputs."""

from __future__ import annotations

from typing import NamedTuple

from flask import Blueprint, Response, make_response, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from keepflow import errors
from keepflow.core.inputs import default_of
from keepflow.engine import commands
from keepflow.web.access import needs
from keepflow.web.state import caller, current_project, web

blueprint = Blueprint("starting", __name__)
#: Before the name of an input in the form, so that no input takes the place of a field of the page.
_INPUT = "input."


@blueprint.get("/projects/<project>/start")
@needs("run")
def choose(project: str) -> Response:  # noqa: ARG001 - the guard reads it
    """Show what could be started at a branch or tag, or at a commit of it."""
    return _page(_At(request.args.get("ref", "")[:255], request.args.get("commit", "")[:64]), "", {}, "", 200)


@blueprint.post("/projects/<project>/start")
@needs("run")
def start(project: str) -> AnyResponse:
    """Start a flow with what was filled in, and go to its run."""
    form = request.form
    flow, at = form.get("flow", "")[:40], _At(form.get("ref", "")[:255], form.get("commit", "")[:64])
    given = {name.removeprefix(_INPUT): value for name, value in form.items() if name.startswith(_INPUT)}
    try:
        number = commands.run_flow(web().master, project, flow, at.ref, given, caller().user.name, at.commit)
    except errors.KeepflowError as error:
        return _page(at, flow, given, error.message, error.http_status)
    return redirect(url_for("runs.show_run", project=project, number=number), 303)


class _At(NamedTuple):
    """Where somebody looks: "" is the main branch, and the newest commit."""

    ref: str
    commit: str


def _page(at: _At, flow: str, given: dict[str, str], wrong: str, status: int) -> Response:
    """Show the forms; `given` was filled in for `flow` before, and is not asked for a second time."""
    found = None
    try:
        found = commands.startable(web().master, current_project(), at.ref, caller().user.name, at.commit)
    except errors.KeepflowError as error:
        wrong, status = wrong or error.message, status if wrong else error.http_status
    page = render_template(
        "start.html",
        section="projects",
        tab="runs",
        project=current_project(),
        ref=at.ref,
        commit=at.commit,
        found=found,
        chosen=flow,
        given=given,
        default_of=default_of,
        wrong=wrong,
    )
    return make_response(page, status)
