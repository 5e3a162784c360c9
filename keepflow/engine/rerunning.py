"""A run again, as a new run of the same commit: all of it, what did not succeed, or from one job on."""

from __future__ import annotations

from keepflow import errors
from keepflow.core import rerunning
from keepflow.core.flows import Plan
from keepflow.core.planning import plan_from_json
from keepflow.core.states import FINAL, Reason, State
from keepflow.core.text import did_you_mean, quoted
from keepflow.engine import dispatch, runs
from keepflow.engine.carried import CARRIED
from keepflow.engine.context import Master
from keepflow.store import events, jobs, projects
from keepflow.store import runs as stored_runs
from keepflow.store.runs import Run
from keepflow.store.writer import Tx


def rerun(
    tx: Tx, master: Master, run_id: int, by: str, now: int, *, failed: bool = False, first: str | None = None
) -> int:
    """Start a run again and return the new number; the ended one stays as it is.

    With `failed` only what did not succeed runs, with `first` also that job and what comes after it.
    Raises Refused, and NotFound for a job that is not there.
    """
    run = stored_runs.by_id(tx.conn, run_id)
    project = projects.by_id(tx.conn, run.project_id)
    name = f"{project.name}#{run.number}"
    plan = rerunning.unspread(_plan(run, name))
    work = _work(tx, run, plan, name, failed=failed, first=first)
    again = f"{name} again" + (f" from {first} on" if first else ", what did not succeed" if failed else "")
    made = runs.add(
        tx,
        master,
        project,
        run.event,
        plan,
        trust=runs.trust_of(tx.conn, project, run.event),
        why=f"{again}, asked for by {by}",
        now=now,
        rerun_of=run.id,
    )
    _carry(tx, run, made, work, Reason(CARRIED, f"succeeded in {name}"), now)
    data = {"of": run.number, "jobs": sorted(work)}
    events.add(tx, now, "run-again", actor=by, project_id=project.id, run_id=made, data=data)
    dispatch.advance(tx, master, made, now)
    return stored_runs.by_id(tx.conn, made).number


def _plan(run: Run, name: str) -> Plan:
    if run.state not in FINAL:
        raise errors.Refused(f"{name} has not ended; cancel it first: keepflow cancel {name}", code="not-ended")
    if run.plan["concurrency"] == dispatch.PARALLEL:
        raise errors.Refused(f"{name} is a {run.flow}; ask for a new one instead of repeating it", code="not-again")
    plan = plan_from_json(run.plan)
    if not plan.jobs:
        raise errors.Refused(f"{name} ended before it had jobs, so there is nothing to run again", code="no-jobs")
    return plan


def _work(tx: Tx, run: Run, plan: Plan, name: str, *, failed: bool, first: str | None) -> set[str]:
    """Return the jobs that work anew."""
    keys = [job.key for job in plan.jobs]
    of_hosts = {job.key: job.group for job in plan_from_json(run.plan).jobs if job.group}
    first = of_hosts.get(first or "", first)
    if first is not None and first not in keys:
        hint = did_you_mean(first, keys) or f"; there are: {', '.join(keys)}"
        raise errors.NotFound(f"{name} has no job {quoted(first)}{hint}", code="no-job")
    if not failed and first is None:
        return set(keys)
    states = {job.key: job.state for job in jobs.of_run(tx.conn, run.id)}
    work = rerunning.anew(plan.jobs, rerunning.succeeded(plan_from_json(run.plan), states), first)
    if not work:
        raise errors.Refused(f"every job of {name} succeeded; there is nothing to run again", code="nothing-failed")
    return work


def _carry(tx: Tx, before: Run, run_id: int, work: set[str], reason: Reason, now: int) -> None:
    """Let the jobs that do not work anew count as they ended, with what they told the jobs behind them."""
    told = {job.key: job.outputs for job in jobs.of_run(tx.conn, before.id)}
    for job in jobs.of_run(tx.conn, run_id):
        if (job.spec["group"] or job.key) not in work:
            jobs.finish(tx.conn, job.id, State.SUCCEEDED, reason, now)
            jobs.tell(tx.conn, job.id, told.get(job.key, {}))
