"""Runs, jobs, attempts and steps as people and programs see them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping

from sqlalchemy import Connection

from keepflow.core import exits, graphs
from keepflow.core.flows import JobKind
from keepflow.store import agents, deliveries, jobs, projects, releases, runs, statuses
from keepflow.store import steps as stored_steps
from keepflow.store.projects import Project
from keepflow.web.answers.deployments import deployment_of_job
from keepflow.wire import api


def run(stored: runs.Run, project: str) -> api.Run:
    """Return one run without its jobs."""
    return api.Run(
        id=stored.id,
        project=project,
        number=stored.number,
        flow=stored.flow,
        state=stored.state,
        reason_code=stored.reason_code,
        reason=stored.reason,
        event=stored.event.kind,
        ref=stored.ref,
        sha=stored.sha,
        message=stored.message,
        actor=stored.actor,
        why=stored.why,
        created_at=stored.created_at,
        started_at=stored.started_at,
        finished_at=stored.finished_at,
    )


def page(conn: Connection, project_ids: Collection[int] | None, query: api.RunsQuery) -> api.RunPage:
    """List runs of these projects (None: of all), newest first."""
    names = {found.id: found.name for found in projects.every(conn)}
    wanted = [found for found in names if project_ids is None or found in project_ids]
    filters = {"flow": query.flow, "state": query.state, "ref": _ref(query.branch)}
    found = runs.page(
        conn,
        before=query.before,
        limit=query.limit + 1,
        project_ids=wanted,
        **{name: value for name, value in filters.items() if value},
    )
    shown = found[: query.limit]
    more = len(found) > query.limit
    return api.RunPage(
        items=[run(stored, names[stored.project_id]) for stored in shown], next=shown[-1].id if more else None
    )


def _ref(branch: str | None) -> str | None:
    return None if not branch else branch if branch.startswith("refs/") else f"refs/heads/{branch}"


def detail(conn: Connection, project: Project, number: int) -> api.RunDetail | None:
    """Return one run with its jobs and releases, or None."""
    stored = runs.by_number(conn, project.id, number)
    if stored is None:
        return None
    later = runs.by_id(conn, stored.superseded_by) if stored.superseded_by else None
    told = statuses.of_run(conn, stored.id)
    delivery = deliveries.by_id(conn, stored.delivery_id) if stored.delivery_id else None
    return api.RunDetail(
        **run(stored, project.name).model_dump(),
        superseded_by=later.number if later else None,
        approved_by=stored.approved_by,
        forge_told=told.told if told else None,
        forge_problem=told.said if told and told.told != told.wanted else "",
        rerun_of=runs.by_id(conn, stored.rerun_of).number if stored.rerun_of else None,
        reruns=[found.number for found in runs.again(conn, stored.id)],
        delivery=delivery.id if delivery else None,
        agent=agents.by_id(conn, stored.agent_id).name if stored.agent_id else None,
        jobs=_jobs(conn, project, stored),
        releases=[release(found) for found in releases.of_run(conn, stored.id)],
    )


def _jobs(conn: Connection, project: Project, run: runs.Run) -> list[api.Job]:
    found = jobs.of_run(conn, run.id)
    levels, tries = graphs.levels(found), _attempts(conn, run)
    return [_job(conn, project, job, levels[job.key], tries[job.id]) for job in found]


def _job(conn: Connection, project: Project, job: jobs.Job, level: int, tries: list[api.Attempt]) -> api.Job:
    return api.Job(
        key=job.key,
        kind=job.kind,
        state=job.state,
        reason_code=job.reason_code,
        reason=job.reason,
        needs=list(job.needs),
        level=level,
        stage=job.spec["stage"],
        when=job.spec["when"],
        allow_failure=job.spec["allow_failure"],
        started_at=job.started_at,
        finished_at=job.finished_at,
        attempts=tries,
        deployment=deployment_of_job(conn, project, job.id) if job.kind == JobKind.DEPLOY else None,
    )


def _attempts(conn: Connection, run: runs.Run) -> Mapping[int, list[api.Attempt]]:
    """Return the attempts of all jobs of a run, by the job's row id; as many questions for one job as for hundreds."""
    steps, found = defaultdict[int, list[api.Step]](list), defaultdict[int, list[api.Attempt]](list)
    for step in stored_steps.of_run(conn, run.id):
        steps[step.attempt_id].append(_step(step))
    tries = jobs.attempts_of_run(conn, run.id)
    names = {one: agents.by_id(conn, one).name for one in {each.agent_id for each in tries} if one is not None}
    for attempt in tries:
        agent = names[attempt.agent_id] if attempt.agent_id is not None else None
        found[attempt.job_id].append(_attempt(attempt, agent, steps[attempt.id]))
    return found


def _attempt(attempt: jobs.Attempt, agent: str | None, steps: list[api.Step]) -> api.Attempt:
    return api.Attempt(
        n=attempt.n,
        fence=attempt.fence,
        state=attempt.state,
        reason_code=attempt.reason_code,
        reason=attempt.reason,
        agent=agent,
        exit_code=attempt.exit_code,
        log_bytes=attempt.log_bytes,
        started_at=attempt.started_at,
        finished_at=attempt.finished_at,
        steps=steps,
    )


def _step(step: stored_steps.Step) -> api.Step:
    return api.Step(
        ordinal=step.ordinal,
        name=step.name,
        state=step.state,
        exit_code=step.exit_code,
        meaning=exits.meaning(step.exit_code) if step.exit_code else "",
        log_from=step.log_from,
        log_to=step.log_to,
        started_at=step.started_at,
        finished_at=step.finished_at,
    )


def release(stored: releases.StoredRelease) -> api.Release:
    """Return one release."""
    found = stored.release
    return api.Release(
        origin=found.origin,
        repository=found.repository,
        reference=stored.reference,
        image_id=found.image_id,
        digest=found.digest,
        identity=found.identity,
        promotable=found.promotable,
        sha=stored.sha,
        created_at=stored.created_at,
    )
