"""Queries of what may be let go of: ended runs that still have a log or artifacts, and what is deployed."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Connection, exists, select, update

from keepflow.core.retention import Ended
from keepflow.core.states import FINAL, State
from keepflow.store.tables import artifacts, attempts, deployments, environments, jobs, placements, releases, runs


def ended(conn: Connection, project_id: int) -> list[Ended]:
    """List the ended runs of a project that still have a log, newest first: never many more than are to be kept."""
    of_run = (jobs.c.run_id == runs.c.id) & (attempts.c.log_path != "")
    has_log = exists().where(attempts.c.job_id == jobs.c.id, of_run)
    query = select(runs.c.id, runs.c.flow, runs.c.ref, runs.c.state, runs.c.finished_at, runs.c.created_at).where(
        runs.c.project_id == project_id, runs.c.state.in_([state.value for state in FINAL]), has_log
    )
    return [
        Ended(row.id, row.flow, row.ref, row.state == State.SUCCEEDED.value, row.finished_at or row.created_at)
        for row in conn.execute(query.order_by(runs.c.id.desc()))
    ]


def deployed(conn: Connection, project_id: int) -> set[int]:
    """Return the runs that what serves stands on: those that deployed it, and those that built it."""
    query = (
        select(jobs.c.run_id, releases.c.run_id.label("built_by"))
        .join_from(placements, environments, placements.c.environment_id == environments.c.id)
        .join(deployments, placements.c.current_id == deployments.c.id)
        .join(jobs, deployments.c.job_id == jobs.c.id)
        .join(releases, deployments.c.release_id == releases.c.id)
        .where(environments.c.project_id == project_id)
    )
    return {run_id for row in conn.execute(query) for run_id in row if run_id is not None}


def logs_of(conn: Connection, run_ids: Collection[int]) -> list[tuple[int, str]]:
    """List (attempt, path of its log) of runs, as far as there still are logs."""
    query = select(attempts.c.id, attempts.c.log_path).join(jobs, attempts.c.job_id == jobs.c.id)
    query = query.where(jobs.c.run_id.in_(run_ids), attempts.c.log_path != "")
    return [(row.id, row.log_path) for row in conn.execute(query)]


def artifacts_of(conn: Connection, run_ids: Collection[int]) -> list[tuple[int, str]]:
    """List (artifact, digest) of runs that are kept as long as the log."""
    query = (
        select(artifacts.c.id, artifacts.c.sha256)
        .join_from(artifacts, attempts, artifacts.c.attempt_id == attempts.c.id)
        .join(jobs, attempts.c.job_id == jobs.c.id)
        .where(jobs.c.run_id.in_(run_ids), artifacts.c.removed_at.is_(None), artifacts.c.expires_at.is_(None))
    )
    return [(row.id, row.sha256) for row in conn.execute(query)]


def forget_logs(conn: Connection, attempt_ids: Collection[int]) -> None:
    """Say that these attempts have no log any more; everything else about them stays."""
    conn.execute(update(attempts).where(attempts.c.id.in_(attempt_ids)).values(log_path=""))
