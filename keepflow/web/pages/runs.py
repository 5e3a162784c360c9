"""The list of runs, and one run with its live log."""

from __future__ import annotations

from flask import Blueprint, Response, render_template, request
from werkzeug.wrappers import Response as AnyResponse

from keepflow.core.roles import PROJECT_VERBS
from keepflow.core.states import FINAL, State
from keepflow.engine import people as rules
from keepflow.store import environments, jobs
from keepflow.web import state
from keepflow.web.access import needs
from keepflow.web.answers import logs, runs
from keepflow.web.answers import server as answers
from keepflow.web.answers import why as answers_why
from keepflow.web.api.artifacts import listed
from keepflow.web.api.control import reasons_of
from keepflow.web.api.runs import answer, approve, attempts, cancel, log_answer, no_run, run_receipt
from keepflow.web.state import caller, current_project, reading, web
from keepflow.wire import api

blueprint = Blueprint("runs", __name__)


@blueprint.get("/runs")
@needs("enter")
def list_runs() -> str:
    """List runs by project, flow, state and branch; htmx asks for the rows alone."""
    found = answers.visible_projects(reading(), caller().user)
    chosen = request.args.get("project", "")
    wanted = {stored.id for stored in found if not chosen or stored.name == chosen}
    given = {name: value for name, value in request.args.items() if name in api.RunsQuery.model_fields and value}
    page = runs.page(reading(), wanted, api.RunsQuery.model_validate(given))
    rows_only = request.headers.get("HX-Target") in ("rows", "more")
    return render_template(
        "parts/run_rows.html" if rows_only else "runs.html",
        section="runs",
        projects=[stored.name for stored in found],
        states=list(State),
        chosen={"project": chosen, **given},
        page=page,
    )


@blueprint.get("/projects/<project>/runs/<int:number>")
@needs("see")
def show_run(project: str, number: int) -> str:  # noqa: ARG001 - the guard reads it
    """Show one run; a failed one opens with the step that failed and the end of its log."""
    return render_template("run.html", **_facts(number))


@blueprint.get("/projects/<project>/runs/<int:number>/now")
@needs("see")
def run_now(project: str, number: int) -> str:  # noqa: ARG001 - the guard reads it
    """Show the part of a run's page that changes."""
    return render_template("parts/run.html", **_facts(number))


def _facts(number: int) -> dict[str, object]:
    found = runs.detail(reading(), current_project(), number)
    if found is None:
        raise no_run(number)
    may = {verb: rules.may(reading(), caller().user, current_project().id, verb) for verb in PROJECT_VERBS}
    return {
        "section": "runs",
        "tab": "runs",
        "project": current_project(),
        "run": found,
        "final": found.state in FINAL,
        "may": may,
        "repeats": found.state in FINAL and may["run"] and _can_repeat(found),
        "failure": _failure(number, found),
        "why": why if answers_why.waits(why := reasons_of(number)) else None,
        "promotable": _promotable(found),
        "receipt": run_receipt(number),
        "artifacts": listed(reading(), current_project(), number),
    }


def _can_repeat(run: api.RunDetail) -> bool:
    """Say whether a run may run again: one that had jobs, and is no promote or rollback."""
    return bool(run.jobs) and not any(job.deployment and job.deployment.kind != "deploy" for job in run.jobs)


def _failure(number: int, run: api.RunDetail) -> dict[str, object] | None:
    """Return the step that failed first, decoded, with the last lines of its log."""
    for job in run.jobs:
        for attempt in job.attempts[-1:]:
            for step in attempt.steps:
                if step.state == State.FAILED:
                    stored = _attempt(attempts(number, job.key), attempt.fence)
                    text = logs.excerpt(web().master.logs, stored, step.log_from, step.log_to, 50)
                    return {"job": job, "step": step, "attempt": attempt, "excerpt": text}
    return None


def _attempt(found: list[jobs.Attempt], fence: int) -> jobs.Attempt:
    return next(one for one in found if one.fence == fence)


def _promotable(run: api.RunDetail) -> list[str]:
    """Return the environments that this run's release could be promoted to from where it served."""
    if not any(release.promotable for release in run.releases):
        return []
    return [place.name for place in environments.of_project(reading(), current_project().id) if place.promote_from]


@blueprint.post("/projects/<project>/runs/<int:number>/cancel")
@needs("cancel")
def cancel_run(project: str, number: int) -> str:  # noqa: ARG001 - the guard reads it
    """Ask for a run to be cancelled and show what became of that."""
    return _answered(number, cancel(number).sentence)


@blueprint.post("/projects/<project>/runs/<int:number>/approve")
@needs("run")
def approve_run(project: str, number: int) -> str:  # noqa: ARG001 - the guard reads it
    """Let a run of a pull request from a fork begin and show what became of that."""
    return _answered(number, approve(number).sentence)


@blueprint.post("/projects/<project>/runs/<int:number>/jobs/<job>/approve")
@needs("promote")
def approve_job(project: str, number: int, job: str) -> str:  # noqa: ARG001 - the guard reads it
    """Answer a job's question with yes and show what became of that."""
    return _answered(number, answer(number, job).sentence)


def _answered(number: int, said: str) -> str:
    """Show a run after a button was pressed, with what that was answered."""
    state.close_reading()  # what was read before is old
    part = "HX-Request" in request.headers
    return render_template("parts/run.html" if part else "run.html", **_facts(number), said=said)


@blueprint.get("/projects/<project>/runs/<int:number>/log")
@needs("see")
def raw_log(project: str, number: int) -> AnyResponse:
    """Download the log of a run as plain text."""
    answer = log_answer(number, api.LogQuery())
    if isinstance(answer, Response):
        answer.headers["Content-Disposition"] = f'attachment; filename="{project}-{number}.log"'
    return answer
