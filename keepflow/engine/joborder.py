"""What an agent is told about a script job: the code, the commands, the names scripts see, and what it is lent."""

from __future__ import annotations

from sqlalchemy import Connection

from keepflow.core import sharing
from keepflow.core.events import Trust
from keepflow.core.flows import JOB_TIMEOUT, PlannedJob, When
from keepflow.core.planning import job_from_json, wiring_from_json
from keepflow.core.script_names import environment_after, failed_before, given_to, names_of_run
from keepflow.core.states import State
from keepflow.engine import artifacts, job_secrets, lending
from keepflow.engine.context import Master
from keepflow.store import jobs, releases
from keepflow.store.jobs import Attempt, Job
from keepflow.store.projects import Project
from keepflow.store.runs import Run
from keepflow.wire.messages import RunJob, Shared, StepOrder

PROTECTED: Trust = "protected"  #: trust of a run whose branch reaches some environment
OTHER: Trust = "other"
FORK: Trust = "fork"  #: trust of a run of somebody else's repository: begins only when a person has approved it


def order(
    conn: Connection, master: Master, project: Project, run: Run, job: Job, attempt: Attempt, agent: str, token: str
) -> RunJob:
    """Return the whole order of one attempt; it holds secrets and is sealed where it is stored.

    No secret is told only to be masked: the agent masks what it is lent, and the master's own log masks all it knows.
    """
    planned, plan = job_from_json(job.spec), wiring_from_json(run.plan)
    trusted, lent = run.trust == PROTECTED, lending.of_job(conn, master.vault, project)
    return RunJob(
        fence=attempt.fence,
        project=project.name,
        run=run.number,
        flow=run.flow,
        job=job.key,
        attempt=attempt.n,
        sha=run.sha,
        ref=run.ref,
        trust=run.trust,
        code_path=f"/git/{project.name}",
        token=token,
        env={"KEEPFLOW_FAILED_JOBS": _failed_before(conn, run, planned, plan)}
        | names_of_run(
            run.event,
            url=f"{master.url().rstrip('/')}/projects/{project.name}/runs/{run.number}",
            registry=next(iter(lent.addresses), ""),
            image=run.plan["image"] or "",
            environment=environment_after(plan, job.key),
            matrix=planned.matrix,
        ),
        steps=tuple(map(StepOrder.of, planned.steps)),
        artifacts=len(artifacts.handed_on(conn, attempt)),
        secrets=job_secrets.lent(conn, master, project, run, job, attempt),
        logins=lent.logins if trusted else (),
        images=project.images,
        timeout=planned.timeout or run.plan["timeout"] or JOB_TIMEOUT,
        given=_given(conn, run, planned, plan),
        where=planned.where,
        shared=_shared(conn, run, planned, plan),
        built=_built(conn, run, agent),
    )


def _built(conn: Connection, run: Run, agent: str) -> str:
    """Return the release of a run that was made last and that an agent can have, "" for none."""
    for made in releases.of_run(conn, run.id):
        if made.release.promotable:
            return f"{made.release.repository}@{made.release.digest}"
        if made.release.origin == f"local:{agent}":
            return made.release.image_id
    return ""


def _failed_before(conn: Connection, run: Run, planned: PlannedJob, plan: tuple[PlannedJob, ...]) -> str:
    if planned.when == When.SUCCESS:
        return ""
    return failed_before(planned, plan, {job.key: job.state for job in jobs.of_run(conn, run.id)})


def _given(conn: Connection, run: Run, planned: PlannedJob, plan: tuple[PlannedJob, ...]) -> dict[str, str]:
    if not planned.needs:
        return {}
    return given_to(planned, plan, {job.key: job.outputs for job in jobs.of_run(conn, run.id)})


def _shared(conn: Connection, run: Run, planned: PlannedJob, plan: tuple[PlannedJob, ...]) -> Shared | None:
    """Return what a job shares with others of its run; of the jobs it goes on with, only those left files that ran."""
    bases, followers = sharing.bases(plan), sharing.followers(plan)
    if not bases[planned.key] and not followers[planned.key]:
        return None
    ran = {job.key for job in jobs.of_run(conn, run.id) if job.state in (State.SUCCEEDED, State.FAILED)}
    several = max(followers.values()) > 1 or max(map(len, bases.values())) > 1
    return Shared(
        bases=tuple(key for key in bases[planned.key] if key in ran),
        followers=followers[planned.key],
        tracked=several or any(job.retry is not None and bases.get(job.key) for job in plan),
        lenient=planned.when != When.SUCCESS,
        again=planned.retry is not None,
    )
