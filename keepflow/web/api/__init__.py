"""The REST API: the same facts and acts as the pages, as JSON."""

from __future__ import annotations

from flask import Blueprint, Response, render_template

from keepflow.web.access import ANYONE, needs
from keepflow.web.api import (
    artifacts,
    canary,
    control,
    delivery,
    drift,
    evidence,
    hooks,
    keys,
    notices,
    people,
    quarantine,
    rehearsals,
    rollbacks,
    rules,
    runs,
    schedules,
    secrets,
    server,
    settling,
)
from keepflow.web.api.endpoint import Endpoints, flask_view
from keepflow.web.api.openapi import document

BASE = "/api/v1"
SUBJECTS: tuple[Endpoints, ...] = (
    server.endpoints,
    hooks.endpoints,
    runs.endpoints,
    control.endpoints,
    artifacts.endpoints,
    schedules.endpoints,
    delivery.endpoints,
    canary.endpoints,
    quarantine.endpoints,
    secrets.endpoints,
    rehearsals.endpoints,
    rollbacks.endpoints,
    drift.endpoints,
    settling.endpoints,
    evidence.endpoints,
    rules.endpoints,
    keys.endpoints,
    notices.endpoints,
    people.endpoints,
)


def blueprint() -> Blueprint:
    """Return the whole API as one blueprint."""
    made = Blueprint("api", __name__, url_prefix=BASE)
    for subject in SUBJECTS:
        for endpoint in subject.all:
            made.add_url_rule(endpoint.path, endpoint.name, flask_view(endpoint), methods=[endpoint.method])
    made.add_url_rule("/openapi.json", "openapi", _openapi)
    made.add_url_rule("/docs", "docs", _docs)
    return made


@needs(ANYONE)
def _openapi() -> Response:
    """Describe the API for programs."""
    return Response(document(SUBJECTS, BASE), mimetype="application/json")


@needs(ANYONE)
def _docs() -> str:
    """Describe the API for people."""
    return render_template("api.html", subjects=SUBJECTS, base=BASE)
