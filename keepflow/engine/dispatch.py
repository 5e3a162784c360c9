"""Moving runs on: which jobs may start, who gets them, and what that makes of the run.

Everything happens in the caller's transaction. `advance` is called whenever something about a run has changed; it may
be called at any time and any number of times.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from sqlalchemy import Connection

from keepflow.core import sharing
from keepflow.core.flows import JobKind
from keepflow.core.holding import Hold
from keepflow.core.planning import wiring_from_json
from keepflow.core.progress import NEEDS, JobView, Progress, progress
from keepflow.core.retrying import RETRY
from keepflow.core.states import FINAL, Reason, State
from keepflow.core.text import one_line
from keepflow.engine import assigning, deploying, job_secrets, joborder, notifying, sending
from keepflow.engine.context import Master
from keepflow.store import events, jobs, lines, projects, runs
from keepflow.store.jobs import Job
from keepflow.store.lines import Line
from keepflow.store.projects import Project
from keepflow.store.runs import Run
from keepflow.store.writer import Tx
from keepflow.wire.messages import RunEnded

#: Reason code of a run of somebody else's code that no person has let begin.
NEEDS_APPROVAL = "needs-approval"
#: Reason code of a run that waits because its project is paused.
PAUSED = "paused"
#: Reason codes of jobs that wait for their agent, and so for a paused project.
_NOT_BEGUN = frozenset({assigning.NO_AGENT, assigning.NO_SLOT, RETRY})
#: Reason code of a job that waits for the answer of a person.
APPROVAL = "approval"
#: How two runs of a flow meet (`Plan.concurrency`); PARALLEL is for runs that guard themselves, such as promotes.
QUEUE, LATEST, CANCEL, PARALLEL = "queue", "latest", "cancel", "parallel"


def advance(tx: Tx, master: Master, run_id: int, now: int) -> None:
    """Move one run on as far as it goes now, then the runs that waited for it, and hand out jobs that became ready."""
    advance_all(tx, master, [run_id], now)


def advance_all(tx: Tx, master: Master, run_ids: Sequence[int], now: int) -> None:
    """Do what `advance` does with several runs, in this order."""
    if run_ids:
        _assign(tx, master, _advance(tx, master, list(run_ids), now), now, anew=False)


def assign(tx: Tx, master: Master, now: int) -> None:
    """Hand out what can be handed out now that agents changed, and bring the runs this concerns up to date."""
    _assign(tx, master, set(), now, anew=True)


def ended(tx: Tx, master: Master, run: Run, now: int) -> None:
    """Let the runs go on that waited for one that has just ended."""
    _assign(tx, master, _advance(tx, master, _held_after(tx.conn, run), now), now, anew=False)


def _assign(tx: Tx, master: Master, unsettled: set[int], now: int, *, anew: bool) -> None:
    touched = assigning.assign(tx, master, now, anew=anew)
    for run_id in sorted(unsettled | touched | set(jobs.runs_with_waiting_deploys(tx.conn))):
        _settle(tx, master, run_id, now)


def _advance(tx: Tx, master: Master, todo: list[int], now: int) -> set[int]:
    """Start what is due of these runs and of those they held back; return the ones whose state is still to be said."""
    unsettled = set[int]()
    while todo:
        run = runs.by_id(tx.conn, todo.pop(0))
        if run.state in FINAL:
            continue
        if waits_for_approval(run):
            _move(tx, master, run, State.WAITING, _unapproved(run), now)
            continue
        held_back = _held_back(tx.conn, run)
        if held_back is not None and run.turn_at is None:
            _move(tx, master, run, State.WAITING, held_back, now)
            continue
        blocker = _blocker(tx.conn, run)
        if blocker is not None:
            _hold(tx, master, run, blocker, now)
            continue
        if run.turn_at is None:
            runs.give_turn(tx.conn, run.id, now)
        if jobs.any_runs(tx.conn, run.id) and not jobs.any_waits(tx.conn, run.id, NEEDS):
            unsettled.add(run.id)  # nothing can follow before one of those jobs has ended
            continue
        result = _start_due(tx, master, run, now)
        if result.state in FINAL:
            _move(tx, master, run, result.state, result.reason, now)
            todo += _held_after(tx.conn, run)
        else:
            unsettled.add(run.id)
    return unsettled


def paused(project: Project) -> str | None:
    """Say who holds a project back and why; None when nobody does."""
    return hold_of(project).sentence()


def hold_of(project: Project) -> Hold:
    """Return who holds a project back."""
    return Hold(project.name, "paused", project.paused_by, project.paused_why)


def _held_back(conn: Connection, run: Run) -> Reason | None:
    """Return why nothing new of a run may begin; promotes and rollbacks have locks of their own."""
    told = None if run.plan["concurrency"] == PARALLEL else paused(projects.by_id(conn, run.project_id))
    return Reason(PAUSED, told) if told else None


def waits_for_approval(run: Run) -> bool:
    """Say whether nobody has let this run of somebody else's code begin."""
    return run.trust == joborder.FORK and run.approved_by is None


def _unapproved(run: Run) -> Reason:
    who = f" by {one_line(run.event.author, 60)}" if run.event.author else ""
    sentence = f"waits for approval: pull request {run.event.number}{who} comes from a fork; read its code first"
    return Reason(NEEDS_APPROVAL, sentence)


def _start_due(tx: Tx, master: Master, run: Run, now: int) -> Progress:
    """Start or skip the jobs that are due, until nothing more follows from that; return how the run stands then."""
    while True:
        found = {job.key: job for job in jobs.of_run(tx.conn, run.id)}
        result = progress([_view(job) for job in found.values()])
        for key, reason in result.skipped.items():
            jobs.finish(tx.conn, found[key].id, State.SKIPPED, reason, now)
        if result.ready and _held_back(tx.conn, run) is not None:
            return result
        started = [_start(tx, master, run, found[key], now) for key in result.ready]
        if all(started):
            return result  # a script only waits for its agent; all else may have ended already


def _start(tx: Tx, master: Master, run: Run, job: Job, now: int) -> bool:
    """Start a job; True when nothing follows from that before an agent says so."""
    if job.kind == JobKind.SCRIPT:
        return _queue(tx, run, job, now)
    if job.kind == JobKind.DEPLOY:
        jobs.wait(tx.conn, job.id, Reason("deploy", "the deployment is being prepared"))
        deploying.start(tx, master, job, now)
    elif job.kind == JobKind.NOTIFY:
        jobs.finish(tx.conn, job.id, State.SUCCEEDED, notifying.ask(tx, master, run, job, now), now)
    else:
        jobs.begin(tx.conn, [job.id], now)
        jobs.wait(tx.conn, job.id, Reason(APPROVAL, f"waits for a release manager: {job.spec['target']}"))
        if run.trust != joborder.FORK:  # whose flow file tells nobody
            data = {"number": run.number, "flow": run.flow, "job": job.key, "question": job.spec["target"]}
            events.add(tx, now, "approval-asked", project_id=run.project_id, run_id=run.id, data=data)
            tx.after_commit(partial(master.wakes.fire, "events"))
        return True
    return False


def _queue(tx: Tx, run: Run, job: Job, now: int) -> bool:
    """Put a script job in line; False when it failed at once, because a secret it asks for is not there for it."""
    sentence = job_secrets.lacking(tx.conn, run, job)
    if sentence is not None:
        jobs.finish(tx.conn, job.id, State.FAILED, Reason("no-secret", sentence), now)
        return False
    jobs.move(tx.conn, job.id, State.QUEUED, Reason("ready", "waits for an agent"))
    return True


def _settle(tx: Tx, master: Master, run_id: int, now: int) -> None:
    """Make the run's own state what its jobs make of it, and say so when it changed."""
    run = runs.by_id(tx.conn, run_id)
    if run.state == State.RUNNING and jobs.any_runs(tx.conn, run_id):
        return
    if run.state not in FINAL:
        result = progress([_view(job) for job in jobs.of_run(tx.conn, run_id)])
        state, reason = result.state, result.reason
        if result.ready or state == State.QUEUED or reason.code in _NOT_BEGUN:
            held_back = _held_back(tx.conn, run)
            state, reason = (State.WAITING, held_back) if held_back else (state, reason)
        _move(tx, master, run, state, reason, now)


def _hold(tx: Tx, master: Master, run: Run, blocker: Run, now: int) -> None:
    name = f"{projects.by_id(tx.conn, run.project_id).name}#{blocker.number}"
    if blocker.state in FINAL:
        reason = Reason(QUEUE, f"waits until the script of {name}, which {_was_ended(blocker)}, has stopped")
    else:
        reason = Reason(QUEUE, f"waits for {name} of {f'group {run.group}' if run.group else 'the same flow'} to end")
    _move(tx, master, run, State.WAITING, reason, now)


def _was_ended(run: Run) -> str:
    return run.state.value if run.state == State.FAILED else f"was {run.state.value}"


def _move(tx: Tx, master: Master, run: Run, state: State, reason: Reason, now: int) -> None:
    if (run.state, run.reason_code, run.reason) == (state, reason.code, reason.sentence):
        return
    limit = run.plan["timeout"] if state == State.RUNNING and run.started_at is None else 0
    columns = {"ends_by": now + int(limit * 1_000_000)} if limit else {}
    if runs.move(tx.conn, run.id, state, reason, now, **columns):
        announce(tx, master, run, state, reason, now)


def announce(tx: Tx, master: Master, run: Run, state: State, reason: Reason, now: int) -> None:
    """Put a changed state of a run into the events (a new reason alone is no event), and wake whoever watches."""
    if state != run.state:
        data = {
            "number": run.number,
            "flow": run.flow,
            "state": state.value,
            "code": reason.code,
            "reason": reason.sentence,
        }
        events.add(tx, now, "run-state", project_id=run.project_id, run_id=run.id, data=data)
    if state in FINAL:
        _free_files(tx, master, run, now)
    tx.after_commit(partial(master.wakes.fire, f"run:{run.id}"))
    tx.after_commit(partial(master.wakes.fire, "events"))


def _free_files(tx: Tx, master: Master, run: Run, now: int) -> None:
    """Tell those that keep files for other jobs of a run that nobody goes on with them."""
    if len(run.plan["jobs"]) < 2 or not any(sharing.followers(wiring_from_json(run.plan)).values()):
        return
    tx.after_commit(partial(master.wakes.fire, "workspaces"))
    name = projects.by_id(tx.conn, run.project_id).name
    held = {attempt.agent_id for attempt in jobs.attempts_of_run(tx.conn, run.id)}
    for agent_id in sorted(agent_id for agent_id in held if agent_id is not None):
        sending.send(tx, master, agent_id, RunEnded(project=name, run=run.number), now)


def _view(job: Job) -> JobView:
    return JobView(
        key=job.key,
        state=job.state,
        reason=Reason(job.reason_code, job.reason),
        needs=job.needs,
        when=job.spec["when"],
        allow_failure=job.spec["allow_failure"],
        pending=job.state == State.WAITING and job.reason_code == NEEDS,
    )


def line_of(run: Run) -> Line:
    """Return the line that a run stands in."""
    ref = None if run.plan["concurrency"] == QUEUE else run.ref
    return Line(run.project_id, run.flow, ref, run.group)


def _blocker(conn: Connection, run: Run) -> Run | None:
    """Return the run that this one must wait for, or None; a run that had its turn waits for nobody.

    It is the last one before it, which itself waits for the one before; or a newer one that began while this one was
    not in the line; or one that was ended while its script still runs.
    """
    if run.turn_at is not None or run.plan["concurrency"] == PARALLEL:
        return None
    line = line_of(run)
    return lines.before(conn, run, line) or lines.in_turn(conn, run, line) or lines.stopping(conn, run, line)


def _held_after(conn: Connection, run: Run) -> list[int]:
    """Return the runs that may have waited for this one: the next of its group, its flow, and its flow and ref."""
    of_flow = lines.after(conn, run, Line(run.project_id, run.flow))
    found = [of_flow]
    if of_flow is not None and of_flow.ref != run.ref:
        found.append(lines.after(conn, run, Line(run.project_id, run.flow, run.ref)))
    if run.group:
        found.append(lines.after(conn, run, Line(run.project_id, run.flow, group=run.group)))
    return sorted({one.id for one in found if one is not None} | set(lines.overtaken(conn, run)))
