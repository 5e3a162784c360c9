"""Webhook calls: what came, and what was decided."""

from __future__ import annotations

from collections.abc import Mapping

from flask import Blueprint, redirect, render_template, request
from werkzeug.wrappers import Response as AnyResponse

from keepflow.core.flows import NO_FLOW
from keepflow.engine import people as rules
from keepflow.store import runs
from keepflow.web.access import needs
from keepflow.web.answers import server as answers
from keepflow.web.api.runs import replay
from keepflow.web.api.runs import show_delivery as read_delivery
from keepflow.web.state import caller, current_project, reading
from keepflow.wire import api

blueprint = Blueprint("deliveries", __name__)
_SAID: Mapping[str, str] = {"section": "projects", "tab": "deliveries", "no_flow": NO_FLOW}  #: to every page here


@blueprint.get("/projects/<project>/deliveries")
@needs("see")
def list_deliveries(project: str) -> str:  # noqa: ARG001 - the guard reads it
    """List the webhook calls of a project."""
    given = {name: request.args[name] for name in ("before",) if name in request.args}
    page = answers.delivery_page(reading(), current_project(), api.PageQuery.model_validate(given))
    return render_template("deliveries.html", project=current_project(), page=page, **_SAID)


@blueprint.get("/projects/<project>/deliveries/<int:delivery>")
@needs("see")
def show_delivery(project: str, delivery: int) -> str:  # noqa: ARG001 - the guard reads the project
    """Show one webhook call: its event, the decision, and why."""
    found = read_delivery(delivery)
    started = [stored.number for stored in runs.of_delivery(reading(), delivery)]
    return render_template(
        "delivery.html",
        project=current_project(),
        delivery=found,
        started=started,
        may_replay=rules.may(reading(), caller().user, current_project().id, "run"),
        **_SAID,
    )


@blueprint.post("/projects/<project>/deliveries/<int:delivery>/replay")
@needs("run")
def replay_delivery(project: str, delivery: int) -> AnyResponse:
    """Handle a webhook call once more and show what becomes of that."""
    return redirect(f"/projects/{project}/deliveries/{replay(delivery)}", 303)
