"""Questions of flows (`approve:`): answered by a person, or lapsed after a week; never a yes by themselves."""

from __future__ import annotations

from keepflow import errors
from keepflow.core.flows import JobKind
from keepflow.core.states import Reason, State
from keepflow.core.text import quoted
from keepflow.engine import dispatch
from keepflow.engine.context import Master
from keepflow.store import events, jobs, runs
from keepflow.store.jobs import Job
from keepflow.store.writer import Tx

LAPSES_AFTER = 7 * 24 * 3600 * 1_000_000  #: microseconds


def approve(tx: Tx, master: Master, run_id: int, key: str, by: str, now: int) -> str:
    """Answer a job's question with yes and let the run go on; raises NotFound, and Refused when it waits for nobody."""
    job = next((found for found in jobs.of_run(tx.conn, run_id) if found.key == key), None)
    if job is None:
        raise errors.NotFound(f"this run has no job {quoted(key)}", code="no-job")
    if job.kind != JobKind.APPROVE or job.state != State.WAITING or job.reason_code != dispatch.APPROVAL:
        raise errors.Refused(f"{key} waits for nobody's answer; it is {job.state.value}", code="no-approval")
    _close(tx, job, State.SUCCEEDED, Reason("approved", f"approved by {by}"), by, now)
    dispatch.advance(tx, master, run_id, now)
    return f"{key} is approved"


def sweep(master: Master, now: int) -> None:
    """End every question that nobody has answered in time; writes nothing when there is none."""
    with master.database.read() as conn:
        due = bool(jobs.unanswered(conn, dispatch.APPROVAL, now - LAPSES_AFTER))
    if due:
        master.writer.call(lambda tx: _lapse(tx, master, now))


def _lapse(tx: Tx, master: Master, now: int) -> None:
    late = jobs.unanswered(tx.conn, dispatch.APPROVAL, now - LAPSES_AFTER)
    for job in late:
        _close(tx, job, State.FAILED, Reason("lapsed", "nobody approved it within a week"), "", now)
    dispatch.advance_all(tx, master, sorted({job.run_id for job in late}), now)


def _close(tx: Tx, job: Job, state: State, reason: Reason, by: str, now: int) -> None:
    jobs.finish(tx.conn, job.id, state, reason, now)
    run = runs.by_id(tx.conn, job.run_id)
    data = {"job": job.key, "state": state.value, "code": reason.code, "reason": reason.sentence}
    events.add(tx, now, "job-answered", actor=by, project_id=run.project_id, run_id=run.id, data=data)
