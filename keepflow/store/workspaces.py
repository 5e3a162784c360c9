"""Workspaces that jobs handed on to another machine: the commit of each in its run's own repository, and large files.

Rows live as long as their run goes on; the bytes are in the repository and among the artifacts.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import Connection, delete, func, select

from keepflow.core.states import FINAL
from keepflow.store.tables import attempts, jobs, runs, workspace_files, workspaces
from keepflow.store.upsert import insert


@dataclass(frozen=True, slots=True)
class HandedOn:
    """What the last attempt at a job left for other machines: its fence, and its commit in the run's repository."""

    fence: int
    commit: str


def put(conn: Connection, run_id: int, attempt_id: int, commit: str, size: int, now: int) -> None:
    """Write down what an attempt handed on; its newest commit counts, and the bytes of all. `size` in bytes."""
    row = {"attempt_id": attempt_id, "run_id": run_id, "commit": commit, "bytes": size, "created_at": now}
    query = insert(conn, workspaces).values(**row)
    grown = {"commit": commit, "bytes": workspaces.c.bytes + size}
    conn.execute(query.on_conflict_do_update(index_elements=["attempt_id"], set_=grown))


def put_file(conn: Connection, run_id: int, sha256: str, size: int, now: int) -> None:
    """Write down a large file of a run, once. `size` in bytes."""
    row = {"run_id": run_id, "sha256": sha256, "bytes": size, "created_at": now}
    conn.execute(insert(conn, workspace_files).values(**row).on_conflict_do_nothing())


def of_run(conn: Connection, run_id: int) -> dict[str, HandedOn]:
    """Return what the jobs of a run handed on, by job: of each its last attempt, when that one handed something on."""
    query = (
        select(jobs.c.key, attempts.c.fence, workspaces.c.commit)
        .join_from(attempts, jobs, attempts.c.job_id == jobs.c.id)
        .outerjoin(workspaces, workspaces.c.attempt_id == attempts.c.id)
        .where(jobs.c.run_id == run_id)
        .order_by(attempts.c.n)
    )
    last = {row.key: row for row in conn.execute(query)}
    return {key: HandedOn(row.fence, row.commit) for key, row in last.items() if row.commit is not None}


def file_of(conn: Connection, run_id: int, sha256: str) -> int | None:
    """Return the size of a large file of a run, None when it has none with this digest."""
    query = select(workspace_files.c.bytes).where(
        workspace_files.c.run_id == run_id, workspace_files.c.sha256 == sha256
    )
    return conn.execute(query).scalar_one_or_none()


def held_by(conn: Connection, run_id: int) -> int:
    """Return the bytes that a run has handed on so far."""
    sums = (
        select(func.coalesce(func.sum(table.c.bytes), 0)).where(table.c.run_id == run_id)
        for table in (workspaces, workspace_files)
    )
    return sum(int(conn.execute(query).scalar_one()) for query in sums)


def needed(conn: Connection, digests: Collection[str]) -> set[str]:
    """Return which of these digests are those of a large file of some run."""
    query = select(workspace_files.c.sha256).where(workspace_files.c.sha256.in_(digests))
    return set(conn.execute(query.distinct()).scalars())


def going_on(conn: Connection, run_ids: Collection[int]) -> set[int]:
    """Return which of these runs have not ended."""
    final = [state.value for state in FINAL]
    return set(conn.execute(select(runs.c.id).where(runs.c.id.in_(run_ids), runs.c.state.not_in(final))).scalars())


def ended(conn: Connection) -> set[int]:
    """Return the ended runs of which something is still written down here."""
    final = [state.value for state in FINAL]
    found = (
        select(table.c.run_id).join(runs, runs.c.id == table.c.run_id).where(runs.c.state.in_(final))
        for table in (workspaces, workspace_files)
    )
    return {run_id for query in found for run_id in conn.execute(query.distinct()).scalars()}


def forget(conn: Connection, run_ids: Collection[int]) -> set[str]:
    """Take out what these runs handed on, and return the digests of their large files."""
    digests = set(conn.execute(select(workspace_files.c.sha256).where(workspace_files.c.run_id.in_(run_ids))).scalars())
    for table in (workspaces, workspace_files):
        conn.execute(delete(table).where(table.c.run_id.in_(run_ids)))
    return digests
