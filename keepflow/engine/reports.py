"""What agents report, written down once: each report by its number, each attempt by its fence."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from sqlalchemy import Connection

from keepflow.core.flows import Container
from keepflow.core.planning import plan_from_json
from keepflow.core.progress import NO_REASON
from keepflow.core.receipts import Base
from keepflow.core.releases import ImageRef, Release, is_digest
from keepflow.core.states import FINAL, Reason, State
from keepflow.core.text import one_line
from keepflow.engine import (
    deploying,
    deployment_reports,
    dispatch,
    evidence,
    hosts,
    lending,
    preparing,
    retrying,
    rolling_back,
    sending,
)
from keepflow.engine.context import Master
from keepflow.store import agents, events, jobs, outgoing, projects, releases, runs
from keepflow.store.jobs import Attempt
from keepflow.store.projects import Project
from keepflow.store.runs import Run
from keepflow.store.writer import Tx
from keepflow.wire import messages
from keepflow.wire.messages import BuiltImage, JobFinished, JobRefused, JobStarted, StepFinished, StepStarted

_SENTENCE = 2000  #: characters of an agent's sentence that are kept
_NAME = 200
_MOST_BASES = 8  #: images that one may be said to stand on
_OUTPUTS = 64 * 1024  #: bytes of variables that one job may tell


def take(tx: Tx, master: Master, agent_id: int, report: messages.Report, now: int) -> None:
    """Write down one report of an agent; one that was taken before changes nothing, and may be acknowledged again."""
    if not agents.take_report(tx.conn, agent_id, report.number):
        return
    body = report.body
    if isinstance(body, messages.HostRollback):
        rolling_back.told_by_host(tx, master, agent_id, body, now)
        return
    if isinstance(body, messages.DeployAnswer | messages.DeployPhase | messages.DeployFinished):
        if preparing.report(tx, master, agent_id, body, now):
            return
        deployment_reports.report(tx, master, agent_id, body, now)
        if isinstance(body, messages.DeployFinished):
            preparing.after(tx, master, body.deployment, now)
        attempt = jobs.attempt_by_fence(tx.conn, body.fence)
        if attempt is not None and not isinstance(body, messages.DeployPhase):
            job = jobs.by_id(tx.conn, attempt.job_id)
            hosts.follow(tx, master, job, now)
            dispatch.advance(tx, master, job.run_id, now)
            deploying.offer_waiting(tx, master, now)
        return
    attempt = jobs.held_attempt(tx.conn, body.fence, agent_id)
    if attempt is None:
        _stale(tx, master, agent_id, body, now)
        return
    if isinstance(body, JobFinished | JobRefused):
        _ended(tx, master, attempt, body, now)
    else:
        _progressed(tx.conn, attempt, body, now)
    run_id = jobs.by_id(tx.conn, attempt.job_id).run_id
    tx.after_commit(partial(master.wakes.fire, f"run:{run_id}"))


def lose(tx: Tx, master: Master, attempt: Attempt, sentence: str, now: int) -> None:
    """End an attempt of a script job of which nobody knows what became, and its job with it."""
    reason = Reason("lost", sentence)
    if jobs.finish_attempt(tx.conn, attempt.fence, State.LOST, reason, now):
        _end_job(tx, master, attempt, State.LOST, reason, None, now)


def _stale(tx: Tx, master: Master, agent_id: int, body: messages.Message, now: int) -> None:
    """Tell an agent to stop what it does not hold (any more); the end of such an attempt needs no answer."""
    if isinstance(body, JobFinished | JobRefused) or not isinstance(body, JobStarted | StepStarted | StepFinished):
        return
    if any(row.body.get("type") == "stop-job" for row in outgoing.of_fence(tx.conn, agent_id, body.fence)):
        return
    sentence = f"attempt {body.fence} is not this agent's, or it has ended"
    sending.send(tx, master, agent_id, messages.StopJob(fence=body.fence, code="stale-fence", sentence=sentence), now)
    events.add(tx, now, "stale-report", agent_id=agent_id, data={"fence": body.fence, "type": body.type})


def _progressed(conn: Connection, attempt: Attempt, body: JobStarted | StepStarted | StepFinished, now: int) -> None:
    if isinstance(body, JobStarted):
        jobs.begin_attempt(conn, attempt.fence, now)
        jobs.begin(conn, attempt.job_id, now)
    elif isinstance(body, StepStarted):
        jobs.begin_step(conn, attempt.id, body.index, one_line(body.name, _NAME), body.offset, now)
    else:
        jobs.end_step(conn, attempt.id, body.index, body.exit_code, body.offset, now)


def _ended(tx: Tx, master: Master, attempt: Attempt, body: JobFinished | JobRefused, now: int) -> None:
    reason = Reason(one_line(body.code, 40), one_line(body.sentence, _SENTENCE))
    if isinstance(body, JobRefused):
        state, exit_code, length = State.FAILED, None, 0
    else:
        state, exit_code, length = State(body.state), body.exit_code, body.log_bytes
        refused = _keep_images(tx, master, attempt, body.images, now)
        if refused is not None and state == State.SUCCEEDED:
            state, reason = State.FAILED, refused
    if state == State.SUCCEEDED:
        reason = NO_REASON
    if isinstance(body, JobFinished) and body.outputs:
        jobs.tell(tx.conn, attempt.job_id, _outputs(body.outputs))
    jobs.finish_attempt(tx.conn, attempt.fence, state, reason, now, exit_code=exit_code, log_bytes=length)
    jobs.end_open_steps(tx.conn, attempt.id, state, length or None, now)
    tx.after_commit(partial(master.logs.finish, attempt.fence))
    _end_job(tx, master, attempt, state, reason, exit_code, now)


def _outputs(told: Mapping[str, str]) -> dict[str, str]:
    """Return what is kept of the variables a job told: as many as an honest agent may send."""
    kept: dict[str, str] = {}
    room = _OUTPUTS
    for name, value in told.items():
        room -= len(name) + len(value.encode(errors="replace"))
        if room < 0:
            break
        kept[name] = value
    return kept


def _end_job(
    tx: Tx, master: Master, attempt: Attempt, state: State, reason: Reason, exit_code: int | None, now: int
) -> None:
    """End the job of an ended attempt, or let another try follow, and move its run on.

    A job that was ended before, by a person or a newer run, stays as it ended.
    """
    job = jobs.by_id(tx.conn, attempt.job_id)
    follows = retrying.again(tx, job, attempt, state, reason, exit_code, now)
    if not follows and jobs.finish(tx.conn, job.id, state, reason, now):
        run = runs.by_id(tx.conn, job.run_id)
        data = {
            "job": job.key,
            "state": state.value,
            "code": reason.code,
            "reason": reason.sentence,
            "fence": attempt.fence,
        }
        events.add(tx, now, "job-ended", project_id=run.project_id, run_id=run.id, agent_id=attempt.agent_id, data=data)
    run = runs.by_id(tx.conn, job.run_id)
    if run.state in FINAL:
        dispatch.ended(tx, master, run, now)  # who must not run at once with it waited for its script to stop
    else:
        dispatch.advance(tx, master, run.id, now)


def _keep_images(tx: Tx, master: Master, attempt: Attempt, images: tuple[BuiltImage, ...], now: int) -> Reason | None:
    """Store what a job built as releases; returns why one of them may not become one."""
    if not images or attempt.agent_id is None:
        return None
    run = runs.by_id(tx.conn, jobs.by_id(tx.conn, attempt.job_id).run_id)
    project, agent = projects.by_id(tx.conn, run.project_id), agents.by_id(tx.conn, attempt.agent_id)
    registries = set(lending.of_project(tx.conn, master.vault, project).addresses)
    container = plan_from_json(run.plan).container or Container()
    refused: Reason | None = None
    for image in images:
        sentence = _not_allowed(image, project, registries, run)
        if sentence is not None:
            refused = Reason("image-not-allowed", sentence)
            continue
        local = image.origin == "local"
        origin = f"local:{agent.name}" if local else "registry"
        release = Release(origin, image.image_id, image.repository, None if local else image.digest)
        release_id = releases.add(
            tx.conn,
            project_id=project.id,
            run_id=run.id,
            release=release,
            reference=image.reference,
            sha=run.sha,
            container=container,
            now=now,
        )
        data = {"release": release_id, "identity": release.identity, "origin": origin, "repository": image.repository}
        evidence.add_provenance(tx, master, release_id, _bases(image), now)
        events.add(tx, now, "release-added", project_id=project.id, run_id=run.id, agent_id=agent.id, data=data)
    return refused


def _bases(image: BuiltImage) -> tuple[Base, ...]:
    """Return what an image stands on, as far as the agent's word can be written down."""
    told = ((one_line(base.reference, 300), base.digest) for base in image.bases[:_MOST_BASES])
    return tuple(Base(reference, digest) for reference, digest in told if reference and is_digest(digest))


def _not_allowed(image: BuiltImage, project: Project, registries: set[str], run: Run) -> str | None:
    """Return why an image may not become a release of this project, or None."""
    shown = one_line(image.repository, 120)
    try:
        reference = ImageRef.parse(image.repository)
    except ValueError:
        return f"{shown} is not the name of an image"
    if not reference.is_of(project.images) or (reference.domain and reference.domain not in registries):
        allowed = ", ".join(project.images) or "none"
        return f"{shown} is not among the images of {project.name} (allowed: {allowed})"
    if image.origin == "registry" and (image.digest is None or run.trust != "protected"):
        return f"{shown} was pushed by a run that may not push: {run.ref} reaches no environment"
    return None
