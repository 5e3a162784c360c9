"""What agents report of script jobs. What came together is written down together: one statement for many rows, and the
runs are moved on once, when all of it stands there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from keepflow.core.flows import Container
from keepflow.core.planning import plan_from_json
from keepflow.core.progress import NO_REASON
from keepflow.core.receipts import Base
from keepflow.core.releases import ImageRef, Release, is_digest
from keepflow.core.states import FINAL, Reason, State
from keepflow.core.text import one_line
from keepflow.engine import dispatch, evidence, lending, retrying, sending
from keepflow.engine.context import Master
from keepflow.store import agents, events, jobs, outgoing, projects, releases, runs, steps
from keepflow.store.jobs import Attempt, End, Job
from keepflow.store.projects import Project
from keepflow.store.runs import Run, may_come_from
from keepflow.store.writer import Tx
from keepflow.wire import messages
from keepflow.wire.messages import BuiltImage, JobFinished, JobRefused, JobStarted, StepFinished, StepStarted

_SENTENCE = 2000  #: characters of an agent's sentence that are kept
_NAME = 200
_MOST_BASES = 8  #: images that one may be said to stand on
_OUTPUTS = 64 * 1024  #: bytes of variables that one job may tell

Body = JobStarted | StepStarted | StepFinished | JobFinished | JobRefused


@dataclass(slots=True)
class _Told:
    """What an agent told of the attempts it holds."""

    begun: list[Attempt] = field(default_factory=list)
    steps_begun: list[steps.Begun] = field(default_factory=list)
    steps_ended: list[steps.Ended] = field(default_factory=list)
    ended: list[tuple[Attempt, JobFinished | JobRefused]] = field(default_factory=list)

    def add(self, attempt: Attempt, body: Body) -> None:
        match body:
            case JobStarted():
                self.begun.append(attempt)
            case StepStarted(index=index, name=name, offset=offset):
                self.steps_begun.append(steps.Begun(attempt.id, index, one_line(name, _NAME), offset))
            case StepFinished(index=index, exit_code=code, offset=offset):
                self.steps_ended.append(steps.Ended(attempt.id, index, code, offset))
            case _:
                self.ended.append((attempt, body))


def take(tx: Tx, master: Master, agent_id: int, bodies: Sequence[Body], now: int) -> None:
    """Write down what an agent reports of script jobs, in this order; what it does not hold it is told to stop."""
    held = jobs.held(tx.conn, {body.fence for body in bodies}, agent_id)
    told, concerned = _Told(), set[int]()
    for body in bodies:
        attempt = held.get(body.fence)
        if attempt is None:
            _stale(tx, master, agent_id, body, now)
            continue
        told.add(attempt, body)
        concerned.add(attempt.job_id)
        if isinstance(body, JobFinished | JobRefused):
            del held[body.fence]  # nothing is said of an attempt after its end
    jobs.begin_attempts(tx.conn, [attempt.fence for attempt in told.begun], now)
    jobs.begin(tx.conn, [attempt.job_id for attempt in told.begun], now)
    steps.begin(tx.conn, told.steps_begun, now)
    steps.end(tx.conn, told.steps_ended, now)
    _end(tx, master, told.ended, now)
    for run_id in sorted(jobs.runs_of(tx.conn, concerned)):
        tx.after_commit(partial(master.wakes.fire, f"run:{run_id}"))


def lose(tx: Tx, master: Master, attempt: Attempt, sentence: str, now: int) -> None:
    """End an attempt of a script job of which nobody knows what became, and its job with it."""
    reason = Reason("lost", sentence)
    if jobs.finish_attempt(tx.conn, attempt.fence, State.LOST, reason, now):
        _end_jobs(tx, master, [(attempt, End(attempt.fence, State.LOST, reason))], now)


def _stale(tx: Tx, master: Master, agent_id: int, body: Body, now: int) -> None:
    """Tell an agent to stop what it does not hold (any more); the end of such an attempt needs no answer."""
    if isinstance(body, JobFinished | JobRefused):
        return
    if any(row.body.get("type") == "stop-job" for row in outgoing.of_fence(tx.conn, agent_id, body.fence)):
        return
    sentence = f"attempt {body.fence} is not this agent's, or it has ended"
    sending.send(tx, master, agent_id, messages.StopJob(fence=body.fence, code="stale-fence", sentence=sentence), now)
    events.add(tx, now, "stale-report", agent_id=agent_id, data={"fence": body.fence, "type": body.type})


def _end(tx: Tx, master: Master, told: Sequence[tuple[Attempt, JobFinished | JobRefused]], now: int) -> None:
    if not told:
        return
    ended = [(attempt, _ending(tx, master, attempt, body, now)) for attempt, body in told]
    jobs.finish_attempts(tx.conn, [end for _, end in ended], now)
    steps.end_open(tx.conn, [(attempt.id, end.state, end.log_bytes or None) for attempt, end in ended], now)
    for _, end in ended:
        tx.after_commit(partial(master.logs.finish, end.fence, end.log_bytes))
    _end_jobs(tx, master, ended, now)


def _ending(tx: Tx, master: Master, attempt: Attempt, body: JobFinished | JobRefused, now: int) -> End:
    """Say how an attempt ended, and keep what it leaves behind."""
    reason = Reason(one_line(body.code, 40), one_line(body.sentence, _SENTENCE))
    if isinstance(body, JobRefused):
        return End(attempt.fence, State.FAILED, reason)
    state = State(body.state)
    refused = _keep_images(tx, master, attempt, body.images, now)
    if refused is not None and state == State.SUCCEEDED:
        state, reason = State.FAILED, refused
    if body.outputs:
        jobs.tell(tx.conn, attempt.job_id, _outputs(body.outputs))
    return End(attempt.fence, state, NO_REASON if state == State.SUCCEEDED else reason, body.exit_code, body.log_bytes)


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


def _end_jobs(tx: Tx, master: Master, ended: Sequence[tuple[Attempt, End]], now: int) -> None:
    """End the jobs of ended attempts, or let another try follow, and move their runs on.

    A job that was ended before, by a person or a newer run, stays as it ended.
    """
    found = jobs.by_ids(tx.conn, [attempt.job_id for attempt, _ in ended])
    of_jobs = runs.by_ids(tx.conn, {job.run_id for job in found.values()})
    last: list[tuple[int, State, Reason]] = []
    told: list[events.Told] = []
    for attempt, end in ended:
        job = found[attempt.job_id]
        follows = retrying.again(tx, job, attempt, end.state, end.reason, end.exit_code, now)
        if not follows and job.state in may_come_from(end.state):
            last.append((job.id, end.state, end.reason))
            told.append(_told(of_jobs[job.run_id], job, attempt, end))
    jobs.finish_all(tx.conn, last, now)
    events.add_all(tx, now, "job-ended", told)
    for run in of_jobs.values():
        if run.state in FINAL:
            dispatch.ended(tx, master, run, now)  # who must not run at once with it waited for its script to stop
    dispatch.advance_all(tx, master, sorted(run.id for run in of_jobs.values() if run.state not in FINAL), now)


def _told(run: Run, job: Job, attempt: Attempt, end: End) -> events.Told:
    data = {
        "job": job.key,
        "state": end.state.value,
        "code": end.reason.code,
        "reason": end.reason.sentence,
        "fence": attempt.fence,
    }
    return events.Told(run.project_id, run.id, data, agent_id=attempt.agent_id)


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
