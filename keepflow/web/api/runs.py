"""Runs, their logs, and the deliveries that started them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from flask import Response, request
from werkzeug.wrappers import Response as AnyResponse

from keepflow.core.text import quoted
from keepflow.engine import approvals, commands, replaying
from keepflow.engine.logs import Logs
from keepflow.errors import NotFound
from keepflow.store import deliveries, jobs, runs
from keepflow.web.answers import logs, switches
from keepflow.web.answers import runs as answers
from keepflow.web.answers import server as server_answers
from keepflow.web.api.endpoint import Endpoints
from keepflow.web.state import caller, current_project, reading, web
from keepflow.wire import api

endpoints = Endpoints("Runs")


@endpoints.add("GET", "/runs", "enter", api.RunPage, query=api.RunsQuery)
def all_runs(query: api.RunsQuery) -> api.RunPage:
    """List the runs of every project the caller may see, newest first."""
    visible = {found.id for found in server_answers.visible_projects(reading(), caller().user)}
    return answers.page(reading(), visible, query)


@endpoints.add("GET", "/projects/<project>/runs", "see", api.RunPage, query=api.RunsQuery)
def project_runs(query: api.RunsQuery) -> api.RunPage:
    """List the runs of a project, newest first."""
    return answers.page(reading(), {current_project().id}, query)


@endpoints.add("POST", "/projects/<project>/runs", "run", api.Started, body=api.NewRun, status=202)
def start_run(body: api.NewRun) -> api.Started:
    """Start a flow by hand."""
    number = commands.run_flow(
        web().master, current_project().name, body.flow, body.ref, body.inputs, caller().user.name, body.commit
    )
    return api.Started(run=number, url=f"{web().master.url()}/projects/{current_project().name}/runs/{number}")


@endpoints.add("GET", "/projects/<project>/runs/<int:number>", "see", api.RunDetail)
def show_run(number: int) -> api.RunDetail:
    """Show one run with its jobs, steps, releases and deployments."""
    found = answers.detail(reading(), current_project(), number)
    if found is None:
        raise no_run(number)
    return found


@endpoints.add("GET", "/projects/<project>/runs/<int:number>/log", "see", query=api.LogQuery)
def run_log(number: int, query: api.LogQuery) -> AnyResponse:
    """Read the log of a run as it is now, as plain text; `/streams/…` follows it."""
    return log_answer(number, query)


@endpoints.add("GET", "/projects/<project>/flows/<flow>/log", "see", query=api.SearchQuery)
def search_logs(flow: str, query: api.SearchQuery) -> AnyResponse:
    """Search the logs of the newest runs of a flow; each line is `PROJECT#RUN JOB:NUMBER: LINE`."""
    project = current_project()
    found = runs.page(reading(), {project.id}, limit=query.runs, flow=flow)
    if not found:
        raise NotFound(f"{project.name} has no run of a flow {quoted(flow)}", code="no-flow")
    named = [(f"{project.name}#{run.number} {name}", one) for run in found for name, one in _named(_tries(run.id))]
    return _as_text(_hits(named, query.grep))


@endpoints.add("GET", "/projects/<project>/runs/<int:number>/receipt", "see", api.RunReceipt)
def run_receipt(number: int) -> api.RunReceipt:
    """Show what the switches of a run proved, host by host and together."""
    stored = runs.by_number(reading(), current_project().id, number)
    if stored is None:
        raise no_run(number)
    return switches.receipt(reading(), current_project(), stored)


def log_answer(number: int, query: api.LogQuery) -> AnyResponse:
    """Return the log of a run of this project as plain text; page and API do the same here."""
    found = attempts(number, query.job, query.attempt)
    store = web().master.logs
    if query.grep:
        return _as_text(_hits(_named(found), query.grep))
    if query.tail:
        return _as_text([logs.tail(store, found, query.tail)])
    return _part(store, found)


def _part(store: Logs, found: list[jobs.Attempt]) -> AnyResponse:
    """Return logs whole, or the one range of bytes that the caller asks for (RFC 9110; several are answered whole)."""
    size, wanted = logs.length(store, found), request.range
    if wanted is None or wanted.units != "bytes" or len(wanted.ranges) != 1:
        answer = _as_text(logs.stream(store, found))
        answer.headers["Accept-Ranges"] = "bytes"
        return answer
    part = wanted.range_for_length(size)
    if part is None:
        return Response(status=416, headers={"Content-Range": f"bytes */{size}"})
    start, stop = part
    answer = _as_text(logs.stream(store, found, start, stop))
    answer.status_code = 206
    answer.headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    return answer


def _tries(run_id: int) -> list[jobs.Attempt]:
    return [attempt for job in jobs.of_run(reading(), run_id) for attempt in jobs.attempts_of(reading(), job.id)]


def _named(found: list[jobs.Attempt]) -> list[tuple[str, jobs.Attempt]]:
    """Put before each attempt the name of its job, with `/2` for the second try at it."""
    names = {one.job_id: jobs.by_id(reading(), one.job_id).key for one in found}
    return [(names[one.job_id] + (f"/{one.n}" if one.n > 1 else ""), one) for one in found]


def _hits(named: list[tuple[str, jobs.Attempt]], text: str) -> Iterator[bytes]:
    """Return `NAME:NUMBER: LINE` of every line that holds a text; read while it is sent, so that little is held."""
    store = web().master.logs
    return (
        f"{name}:{number}: {line}\n".encode()
        for name, attempt in named
        for number, line in logs.matching(store, attempt, text)
    )


def _as_text(body: Iterable[bytes]) -> Response:
    """Return plain text that is never a document of this origin, whatever a browser makes of the bytes."""
    answer = Response(body, mimetype="text/plain")
    answer.headers["Content-Security-Policy"] = "default-src 'none'; sandbox"
    return answer


def attempts(number: int, job: str | None, n: int | None = None) -> list[jobs.Attempt]:
    """Return the attempts of a run (or of one of its jobs, or only its nth) in order; raises NotFound."""
    stored = runs.by_number(reading(), current_project().id, number)
    if stored is None:
        raise no_run(number)
    found = jobs.of_run(reading(), stored.id)
    if job is not None:
        found = [one for one in found if one.key == job]
        if not found:
            keys = ", ".join(one.key for one in jobs.of_run(reading(), stored.id))
            sentence = f"run {current_project().name}#{number} has no job {quoted(job)}; there are: {keys or 'none'}"
            raise NotFound(sentence, code="no-job")
    tries = [attempt for one in found for attempt in jobs.attempts_of(reading(), one.id) if n in (None, attempt.n)]
    if n is not None and not tries:
        raise NotFound(
            f"there is no attempt {n} at {job or 'a job'} of {current_project().name}#{number}", code="no-attempt"
        )
    return tries


def no_run(number: int) -> NotFound:
    """Return the error for a run that is not there."""
    return NotFound(f"there is no run {current_project().name}#{number}", code="no-run")


@endpoints.add("POST", "/projects/<project>/runs/<int:number>/cancel", "cancel", api.Cancelled)
def cancel_run(number: int) -> api.Cancelled:
    """Ask for a run to be cancelled and say what becomes of that."""
    return cancel(number)


@endpoints.add("POST", "/projects/<project>/runs/<int:number>/approve", "run", api.Approved)
def approve_run(number: int) -> api.Approved:
    """Let a run of a pull request from a fork begin."""
    return approve(number)


@endpoints.add("POST", "/projects/<project>/runs/<int:number>/jobs/<job>/approve", "promote", api.Approved)
def approve_job(number: int, job: str) -> api.Approved:
    """Answer the question that a job of a run asks with yes."""
    return answer(number, job)


def answer(number: int, job: str) -> api.Approved:
    """Answer a job's question with yes as the caller; page and API do the same here."""
    stored = runs.by_number(reading(), current_project().id, number)
    if stored is None:
        raise no_run(number)
    master, now, by = web().master, web().now(), caller().user.name
    sentence = master.writer.call(lambda tx: approvals.approve(tx, master, stored.id, job, by, now))
    return api.Approved(sentence=sentence)


def approve(number: int) -> api.Approved:
    """Let a run of this project begin as the caller; page and API do the same here."""
    stored = runs.by_number(reading(), current_project().id, number)
    if stored is None:
        raise no_run(number)
    master, now, by = web().master, web().now(), caller().user.name
    answer = master.writer.call(lambda tx: commands.approve_run(tx, master, stored.id, by, now))
    return api.Approved(sentence=answer.sentence)


def cancel(number: int) -> api.Cancelled:
    """Cancel a run of this project as the caller; page and API do the same here."""
    stored = runs.by_number(reading(), current_project().id, number)
    if stored is None:
        raise no_run(number)
    master, now, by = web().master, web().now(), caller().user.name
    answer = master.writer.call(lambda tx: commands.cancel_run(tx, master, stored.id, by, now))
    return api.Cancelled(word=answer.word, sentence=answer.sentence)


@endpoints.add("GET", "/projects/<project>/deliveries", "see", api.DeliveryPage, query=api.PageQuery)
def project_deliveries(query: api.PageQuery) -> api.DeliveryPage:
    """List the webhook calls of a project, newest first."""
    return server_answers.delivery_page(reading(), current_project(), query)


@endpoints.add("POST", "/projects/<project>/deliveries/<int:delivery>/replay", "run", api.Replayed, status=202)
def replay_delivery(delivery: int) -> api.Replayed:
    """Handle a webhook call once more, as a new delivery."""
    return api.Replayed(delivery=replay(delivery))


def replay(delivery: int) -> int:
    """Replay a delivery of this project as the caller; page and API do the same here."""
    master, project, now, by = web().master, current_project(), web().now(), caller().user.name
    return master.writer.call(lambda tx: replaying.replay(tx, master, project, delivery, by, now))


@endpoints.add("GET", "/projects/<project>/deliveries/<int:delivery>", "see", api.Delivery)
def show_delivery(delivery: int) -> api.Delivery:
    """Show one webhook call and what was decided about it."""
    found = deliveries.by_id(reading(), delivery)
    if found is None or found.project_id != current_project().id:
        raise NotFound(f"{current_project().name} has no delivery {delivery}", code="no-delivery")
    return server_answers.delivery(found)
