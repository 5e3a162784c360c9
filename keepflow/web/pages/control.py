"""The buttons of a run that has ended, and of a project that is held back."""

from __future__ import annotations

from flask import Blueprint, redirect, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from keepflow.web.access import needs
from keepflow.web.api import control
from keepflow.wire import api

blueprint = Blueprint("control", __name__)


@blueprint.post("/projects/<project>/runs/<int:number>/rerun")
@needs("run")
def run_again(project: str, number: int) -> AnyResponse:
    """Run an ended run again and go to the new one."""
    job = request.form.get("job", "")[:100]
    made = control.again(number, api.Again(failed=request.form.get("failed") == "1", job=job or None))
    return redirect(url_for("runs.show_run", project=project, number=made.run), 303)


@blueprint.post("/projects/<project>/pause")
@needs("pause")
def pause(project: str) -> AnyResponse:
    """Pause a project and go back to it."""
    control.pause(request.form.get("why", "")[:2000])
    return redirect(url_for("board.show_project", project=project), 303)


@blueprint.post("/projects/<project>/resume")
@needs("pause")
def resume(project: str) -> AnyResponse:
    """Let a project go on and go back to it."""
    control.resume()
    return redirect(url_for("board.show_project", project=project), 303)
