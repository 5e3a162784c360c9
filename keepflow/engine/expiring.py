"""Runs that take longer than their flow allows are ended; what a deployment has begun goes on by itself."""

from __future__ import annotations

from keepflow.core.progress import NEEDS
from keepflow.core.states import LIVE, Reason, State
from keepflow.core.text import words
from keepflow.engine import dispatch
from keepflow.engine import runs as engine_runs
from keepflow.engine.context import Master
from keepflow.store import events, jobs, runs
from keepflow.store.runs import Run
from keepflow.store.writer import Tx


def sweep(master: Master, now: int) -> None:
    """End every run whose time is up; writes nothing when there is none."""
    with master.database.read() as conn:
        due = bool(runs.overdue(conn, now))
    if due:
        master.writer.call(lambda tx: _expire_all(tx, master, now))


def _expire_all(tx: Tx, master: Master, now: int) -> None:
    for run in runs.overdue(tx.conn, now):
        _expire(tx, master, run, now)


def _expire(tx: Tx, master: Master, run: Run, now: int) -> None:
    if _asks_somebody(tx, run):
        runs.limit(tx.conn, run.id, now + int(run.plan["timeout"] * 1_000_000))  # a person's time is not the run's
        return
    sentence = f"the run did not end within {words(run.plan['timeout'])}, the timeout of flow {run.flow}"
    word = engine_runs.stop(tx, master, run, State.FAILED, Reason("timeout", sentence), now)
    runs.limit(tx.conn, run.id, None)  # a deployment that goes on keeps the run alive, and is asked only once
    events.add(tx, now, "run-timeout", project_id=run.project_id, run_id=run.id, data={"word": word})
    dispatch.ended(tx, master, run, now)


def _asks_somebody(tx: Tx, run: Run) -> bool:
    """Say whether all that a run does is to wait for a person's answer."""
    live = [job for job in jobs.of_run(tx.conn, run.id) if job.state in LIVE and job.reason_code != NEEDS]
    return bool(live) and all(job.reason_code == dispatch.APPROVAL for job in live)
