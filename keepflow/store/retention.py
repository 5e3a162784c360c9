"""Queries of what may be let go of: ended runs, what is still kept of them, and what cites them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import Connection, Select, delete, exists, func, select, update

from keepflow.core.retention import Ended
from keepflow.core.states import FINAL, State
from keepflow.store.tables import (
    artifacts,
    attempts,
    deliveries,
    deployments,
    environments,
    jobs,
    placements,
    releases,
    runs,
    statuses,
    steps,
    workspace_files,
    workspaces,
)

_ENDED = select(
    runs.c.id, runs.c.number, runs.c.flow, runs.c.ref, runs.c.state, runs.c.finished_at, runs.c.created_at
).where(runs.c.state.in_([state.value for state in FINAL]))


def ended(conn: Connection, project_id: int) -> list[Ended]:
    """List the ended runs of a project that still have a log, newest first: never many more than are to be kept."""
    of_run = (jobs.c.run_id == runs.c.id) & (attempts.c.log_path != "")
    has_log = exists().where(attempts.c.job_id == jobs.c.id, of_run)
    return _ended(conn, _ENDED.where(runs.c.project_id == project_id, has_log))


def every_ended(conn: Connection, project_id: int) -> list[Ended]:
    """List all ended runs of a project, newest first."""
    return _ended(conn, _ENDED.where(runs.c.project_id == project_id))


def _ended(conn: Connection, query: Select[Any]) -> list[Ended]:
    return [
        Ended(
            row.id, row.flow, row.ref, row.state == State.SUCCEEDED.value, row.finished_at or row.created_at, row.number
        )
        for row in conn.execute(query.order_by(runs.c.id.desc()))
    ]


def held(conn: Connection, run_ids: Collection[int]) -> dict[int, tuple[list[str], int]]:
    """Return what is kept of runs: the paths of their logs, and the bytes of their artifacts."""
    found: dict[int, tuple[list[str], int]] = {}
    logs = select(jobs.c.run_id, attempts.c.log_path).join(jobs, attempts.c.job_id == jobs.c.id)
    for row in conn.execute(logs.where(jobs.c.run_id.in_(run_ids), attempts.c.log_path != "")):
        found.setdefault(row.run_id, ([], 0))[0].append(row.log_path)
    sizes = (
        select(jobs.c.run_id, func.sum(artifacts.c.size).label("size"))
        .join_from(artifacts, attempts, artifacts.c.attempt_id == attempts.c.id)
        .join(jobs, attempts.c.job_id == jobs.c.id)
        .where(jobs.c.run_id.in_(run_ids), artifacts.c.removed_at.is_(None), artifacts.c.expires_at.is_(None))
    )
    for row in conn.execute(sizes.group_by(jobs.c.run_id)):
        found[row.run_id] = (found.get(row.run_id, ([], 0))[0], int(row.size))
    return found


def for_good(conn: Connection, project_id: int) -> set[int]:
    """Return the runs that rows cite which are never deleted: releases, and with them receipts, and deployments."""
    built = select(releases.c.run_id).join(runs, releases.c.run_id == runs.c.id).where(runs.c.project_id == project_id)
    deployed = (
        select(jobs.c.run_id)
        .join_from(deployments, jobs, deployments.c.job_id == jobs.c.id)
        .join(runs, jobs.c.run_id == runs.c.id)
        .where(runs.c.project_id == project_id)
    )
    return {run_id for query in (built, deployed) for run_id in conn.execute(query).scalars()}


def handing_on(conn: Connection, run_ids: Collection[int]) -> set[int]:
    """Return those of some runs whose workspaces have not been let go of yet."""
    columns = (workspaces.c.run_id, workspace_files.c.run_id)
    return {found for column in columns for found in conn.execute(select(column).where(column.in_(run_ids))).scalars()}


def forget_runs(conn: Connection, run_ids: Collection[int]) -> None:
    """Delete runs with all that is theirs alone; nothing that is kept for good may cite them."""
    of_runs = select(jobs.c.id).where(jobs.c.run_id.in_(run_ids))
    of_jobs = select(attempts.c.id).where(attempts.c.job_id.in_(of_runs))
    for column in (runs.c.superseded_by, runs.c.rerun_of):
        conn.execute(update(runs).where(column.in_(run_ids)).values({column: None}))
    for table, column, wanted in (
        (steps, steps.c.attempt_id, of_jobs),
        (artifacts, artifacts.c.attempt_id, of_jobs),
        (attempts, attempts.c.job_id, of_runs),
        (statuses, statuses.c.run_id, run_ids),
        (jobs, jobs.c.run_id, run_ids),
        (runs, runs.c.id, run_ids),
    ):
        conn.execute(delete(table).where(column.in_(wanted)))


def forget_deliveries(conn: Connection, before: int) -> int:
    """Delete deliveries handled before a time of which no run is left, but the newest of each ref; return how many."""
    cited = exists().where(runs.c.delivery_id == deliveries.c.id)
    later = deliveries.alias()
    followed = exists().where(
        later.c.project_id == deliveries.c.project_id, later.c.ref == deliveries.c.ref, later.c.id > deliveries.c.id
    )
    gone = delete(deliveries).where(deliveries.c.handled.is_(True), deliveries.c.received_at < before, ~cited, followed)
    return conn.execute(gone).rowcount


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
