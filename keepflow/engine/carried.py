"""Jobs of a run that count as they ended in the run before, and what that run built."""

from __future__ import annotations

from sqlalchemy import Connection

from keepflow.core.flows import JobKind
from keepflow.store import jobs, releases, runs
from keepflow.store.releases import StoredRelease
from keepflow.store.runs import Run

#: Reason code of a job that counts as it ended in the run before.
CARRIED = "carried"


def releases_of(conn: Connection, run: Run) -> list[StoredRelease]:
    """List what a run can deploy, its own builds first, then those it carries from the runs before it."""
    found = releases.of_run(conn, run.id)
    while run.rerun_of is not None and _carries_builds(conn, run):
        run = runs.by_id(conn, run.rerun_of)
        found += releases.of_run(conn, run.id)
    return found


def _carries_builds(conn: Connection, run: Run) -> bool:
    return any(job.kind == JobKind.SCRIPT and job.reason_code == CARRIED for job in jobs.of_run(conn, run.id))
