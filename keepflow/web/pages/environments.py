"""Environments of a project side by side, and the page on which a promote is confirmed."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from flask import Blueprint, Response, make_response, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from keepflow import errors
from keepflow.core.direction import Direction
from keepflow.core.promoting import LEAST_REASON
from keepflow.core.roles import PROJECT_VERBS
from keepflow.engine import advice, promoting
from keepflow.engine import people as rights
from keepflow.engine.marks import not_a_tester
from keepflow.web.access import needs
from keepflow.web.answers import deployments as answers
from keepflow.web.answers import evidence
from keepflow.web.answers import rules as kept
from keepflow.web.api.delivery import press
from keepflow.web.api.rehearsals import look
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
    conn, place, user = reading(), current_project(), caller().user
    found = answers.board(conn, place)
    offers = {environment.name: _offer(environment) for environment in found}
    return {
        "section": "projects",
        "tab": "environments",
        "project": place,
        "environments": found,
        "warnings": advice.of_project(conn, place.id),
        "offers": {name: offer for name, offer in offers.items() if offer is not None},
        "may": {verb: rights.may(conn, user, place.id, verb) for verb in PROJECT_VERBS},
        "kept_from_marking": {environment.name: _kept_from_marking(environment) for environment in found},
        "lapses_in": {
            environment.name: kept.lapses_in(environment.gate.lapses_at, web().now())
            for environment in found
            if environment.gate
        },
    }


def _offer(environment: api.Environment) -> api.Preview | None:
    """Say what promoting would do: the release at the open gate, else the newest candidate that does not serve yet."""
    newest = environment.candidates[0] if environment.candidates else None
    if environment.gate is not None:
        return _preview(environment.name, environment.gate.identity)
    if newest is None or newest.serves:
        return None
    return _preview(environment.name, newest.identity)


def _kept_from_marking(environment: api.Environment) -> str | None:
    """Say why the caller cannot mark what serves there; None when they can."""
    conn, place, user = reading(), current_project(), caller().user
    if not rights.may(conn, user, place.id, "tested"):
        return f"{user.name} needs the role tester on this project"
    targets = [answers.by_name(conn, place, name) for name in environment.promotes_to]
    return not_a_tester(targets, user.name, answers.presser(conn, user, place).groups)


def _preview(environment: str, source: str) -> api.Preview:
    who = answers.presser(reading(), caller().user, current_project())
    found = promoting.preview(
        web().master, current_project().name, environment, source, who, web().now(), rollback=True
    )
    return answers.preview(found)


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


@dataclass(frozen=True, slots=True)
class Filled:
    """What a person has put into the form."""

    source: str
    note: str = ""
    reason: str = ""
    key: str = ""
    canary: str = ""
    hold: str = ""


@blueprint.get("/projects/<project>/environments/<environment>/promote")
@needs("see")
def confirm(project: str, environment: str) -> Response:  # noqa: ARG001 - the guard reads the project
    """Show what a promote would do and ask for the environment's name."""
    return _confirm(environment, Filled(request.args.get("source", ""), key=secrets.token_hex(16)), "", 200)


@blueprint.post("/projects/<project>/environments/<environment>/promote")
@needs("promote")
def promote(project: str, environment: str) -> AnyResponse:
    """Press the button: start the promote and go to the run that carries it out."""
    form = request.form
    filled = Filled(
        form.get("source", ""),
        form.get("note", "")[:2000],
        form.get("reason", "")[:2000],
        form.get("key", ""),
        form.get("canary", ""),
        form.get("hold", ""),
    )
    back, breaks = form.get("way") == "back", "reason" in form
    wanted = typed_word(environment, back=back)
    if form.get("typed", "").strip() != wanted:
        wrong = f"type {wanted} to confirm that this is what you mean"
        return _confirm(environment, filled, wrong, 400)
    said = promoting.Said(
        filled.note,
        back,
        filled.reason if breaks else None,
        form.get("serving"),
        filled.key,
        *_canary(filled.canary, filled.hold),
    )
    try:
        deployment = press(environment, filled.source, said)
    except (errors.Refused, errors.UsageError) as error:
        return _confirm(environment, filled, error.message, error.http_status)
    with web().master.database.read() as conn:
        run = answers.deployment_by_id(conn, caller().user, deployment).run
    return redirect(url_for("runs.show_run", project=project, number=run), 303)


def typed_word(environment: str, *, back: bool) -> str:
    """Return what must be typed: the environment's name, and for going back the word rollback with it."""
    return f"rollback {environment}" if back else environment


def _canary(steps: str, hold: str) -> tuple[tuple[int, ...], int]:
    """Read the fields of the form; what is no number is told by the rules of canaries."""
    numbers = (int(step) if step.isdecimal() and len(step) < 4 else 0 for step in steps.split(",") if step)
    return tuple(numbers), int(hold) if hold.isdecimal() and len(hold) < 6 else 0


def _confirm(environment: str, filled: Filled, wrong: str, status: int) -> Response:
    preview = _preview(environment, filled.source)
    page = render_template(
        "promote.html",
        section="projects",
        tab="environments",
        project=current_project(),
        preview=preview,
        receipts=evidence.lines(reading(), current_project(), preview.identity),
        ready=look(environment, filled.source),
        rehearsal_key=secrets.token_hex(16),
        environment=answers.by_name(reading(), current_project(), environment),
        filled=filled,
        back=preview.direction == Direction.BACK,
        word=typed_word(environment, back=preview.direction == Direction.BACK),
        least=LEAST_REASON,
        may_promote=rights.may(reading(), caller().user, current_project().id, "promote"),
        wrong=wrong,
    )
    return make_response(page, status)
