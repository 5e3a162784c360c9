"""The form by which a person says how a deployment ended."""

from __future__ import annotations

from flask import Blueprint, abort, redirect, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from keepflow.engine.settling import Serves
from keepflow.web.access import needs
from keepflow.web.api import settling

blueprint = Blueprint("settling", __name__)


@blueprint.post("/projects/<project>/environments/<environment>/settle")
@needs("rollback")
def settle(project: str, environment: str) -> AnyResponse:
    """Settle what is unknown and go back to the environments."""
    serves = request.form.get("serves", "")
    if serves not in ("new", "old"):
        abort(400)
    word: Serves = "new" if serves == "new" else "old"
    settling.settle(environment, request.form.get("host", "")[:40], word, request.form.get("why", "")[:2000])
    return redirect(url_for("environments.board", project=project), 303)
