"""Further tries at script jobs: added as new attempts, at once or after a while, never in place of the earlier ones."""

from __future__ import annotations

from keepflow.core import retrying
from keepflow.core.flows import JobKind
from keepflow.core.states import LIVE, Reason, State
from keepflow.engine import dispatch
from keepflow.engine.context import Master
from keepflow.store import events, jobs, runs
from keepflow.store.jobs import Attempt, Job
from keepflow.store.writer import Tx


def again(tx: Tx, job: Job, attempt: Attempt, state: State, reason: Reason, exit_code: int | None, now: int) -> bool:
    """Let the next try at a job follow when its flow says so; False when this was the last one."""
    rules = [retrying.from_json(job.spec["retry"])]
    if all(step["idempotent"] for step in job.spec["steps"]):  # nobody knows how far a lost one came
        rules.append(retrying.WHEN_IDEMPOTENT)
    rule = next((one for one in rules if one and one.after(attempt.n, state, reason.code, exit_code)), None)
    if job.state not in LIVE or rule is None:
        return False
    follows = rule.reason(attempt.n, reason.sentence)
    if rule.delay:
        jobs.try_later(tx.conn, job.id, follows, now + int(rule.delay * 1_000_000))
    else:
        jobs.move(tx.conn, job.id, State.QUEUED, follows)
    if state == State.LOST and not _has_files(tx, job):
        runs.bind_agent(tx.conn, job.run_id, None)
    run = runs.by_id(tx.conn, job.run_id)
    data = {"job": job.key, "attempt": attempt.n, "code": reason.code, "reason": follows.sentence}
    events.add(tx, now, "job-retried", project_id=run.project_id, run_id=run.id, agent_id=attempt.agent_id, data=data)
    return True


def sweep(master: Master, now: int) -> None:
    """Let every try begin whose time has come; writes nothing when there is none."""
    with master.database.read() as conn:
        due = bool(jobs.due_again(conn, now))
    if due:
        master.writer.call(lambda tx: _begin(tx, master, now))


def _begin(tx: Tx, master: Master, now: int) -> None:
    due = jobs.due_again(tx.conn, now)
    for job in due:
        jobs.try_now(tx.conn, job.id, Reason("ready", "waits for an agent"))
    dispatch.advance_all(tx, master, sorted({job.run_id for job in due}), now)


def _has_files(tx: Tx, job: Job) -> bool:
    """Say whether other jobs of the run left something on the agent that this one would miss elsewhere."""
    found = jobs.of_run(tx.conn, job.run_id)
    return any(one.kind == JobKind.SCRIPT and one.id != job.id and one.started_at is not None for one in found)
