"""Running again what has ended, and holding a project back."""

from __future__ import annotations

from keepflow.engine import dispatch, pausing, rerunning
from keepflow.engine import people as rights
from keepflow.errors import UsageError
from keepflow.store import projects, runs
from keepflow.web.answers import why
from keepflow.web.api.endpoint import Endpoints
from keepflow.web.api.runs import no_run
from keepflow.web.state import caller, current_project, reading, web
from keepflow.wire import api

endpoints = Endpoints("Control")


@endpoints.add("POST", "/projects/<project>/runs/<int:number>/rerun", "run", api.Started, body=api.Again, status=202)
def run_again(number: int, body: api.Again) -> api.Started:
    """Run an ended run again, as a new run of the same commit."""
    return again(number, body)


def again(number: int, body: api.Again) -> api.Started:
    """Run a run of this project again as the caller; page and API do the same here."""
    if body.failed and body.job is not None:
        raise UsageError("say `failed` or a `job`, not both", code="one-choice")
    stored = runs.by_number(reading(), current_project().id, number)
    if stored is None:
        raise no_run(number)
    master, now, by = web().master, web().now(), caller().user.name
    made = master.writer.call(
        lambda tx: rerunning.rerun(tx, master, stored.id, by, now, failed=body.failed, first=body.job)
    )
    return api.Started(run=made, url=f"{master.url()}/projects/{current_project().name}/runs/{made}")


@endpoints.add("GET", "/projects/<project>/runs/<int:number>/why", "see", api.Why)
def why_run(number: int) -> api.Why:
    """Say why a run is as it is: what it waits for and who is in the way, or how it ended."""
    return reasons_of(number)


def reasons_of(number: int) -> api.Why:
    """Return why a run of this project is as it is; page and API do the same here."""
    found = why.of_run(reading(), current_project(), number)
    if found is None:
        raise no_run(number)
    return found


@endpoints.add("GET", "/projects/<project>/pause", "see", api.Pause)
def show_pause() -> api.Pause:
    """Say whether a project is paused."""
    return _answer()


@endpoints.add("POST", "/projects/<project>/pause", "pause", api.Pause, body=api.PauseRequest)
def pause_project(body: api.PauseRequest) -> api.Pause:
    """Let nothing new of a project begin."""
    return pause(body.why)


@endpoints.add("POST", "/projects/<project>/resume", "pause", api.Pause)
def resume_project() -> api.Pause:
    """Let a paused project go on."""
    return resume()


def pause(reason: str) -> api.Pause:
    """Pause this project as the caller; page and API do the same here."""
    master, now, by, project = web().master, web().now(), caller().user.name, current_project()
    master.writer.call(lambda tx: pausing.pause(tx, master, projects.by_id(tx.conn, project.id), reason, by, now))
    return _answer()


def resume() -> api.Pause:
    """Let this project go on as the caller; page and API do the same here."""
    master, now, user, project = web().master, web().now(), caller().user, current_project()
    admin = rights.may(reading(), user, project.id, "roles")
    master.writer.call(
        lambda tx: pausing.resume(tx, master, projects.by_id(tx.conn, project.id), user.name, admin, now)
    )
    return _answer()


def _answer() -> api.Pause:
    with web().master.database.read() as conn:
        found = projects.by_id(conn, current_project().id)
    return api.Pause(
        paused_by=found.paused_by,
        paused_why=found.paused_why,
        paused_at=found.paused_at,
        sentence=dispatch.paused(found) or f"{found.name} is not paused",
    )
