"""What people ask for: start a flow by hand, cancel a run."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from keepflow import errors
from keepflow.core import matching, planning
from keepflow.core.events import Event, EventKind
from keepflow.core.flows import Flow, FlowFile
from keepflow.core.inputs import given_inputs
from keepflow.core.states import FINAL, Reason, State
from keepflow.core.text import did_you_mean, listed, quoted
from keepflow.engine import clock, dispatch, repository, runs
from keepflow.engine.context import Master
from keepflow.engine.mirrors import MAIN_BRANCHES
from keepflow.store import events, jobs, projects
from keepflow.store import runs as stored_runs
from keepflow.store.projects import Project
from keepflow.store.runs import Run
from keepflow.store.writer import Tx

_COMMIT = re.compile(r"[0-9a-f]{7,64}")
#: Microseconds that the run of a fork waits for somebody to let it begin.
APPROVAL_WAITS = 14 * 24 * 3600 * 1_000_000

_SOME = 5  #: branches that are named to somebody who has to say one


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a request: a word for machines (`engine.runs`) and a sentence for people."""

    word: str
    sentence: str


@dataclass(frozen=True, slots=True)
class Startable:
    """What people could start at a commit: its full ref name and the flow file there, and the flows with `manual`."""

    event: Event
    flow_file: FlowFile

    @property
    def flows(self) -> list[Flow]:
        """The flows that people may start."""
        return [flow for flow in self.flow_file.flows.values() if flow.on.manual]


def startable(master: Master, project: Project, ref: str, by: str, commit: str = "") -> Startable:
    """Look what could be started by hand at a branch or tag ("" = the main one), at a commit of it ("" = the newest).

    Asks the remote, so it is not for the writer thread. Raises NotFound, UsageError, and what git raises.
    """
    full, head = _resolve(master, project, ref)
    sha = _commit(master, project, full, commit) if commit else head
    now = clock.now()
    found = repository.look(master, project, Event(EventKind.MANUAL, full, sha, actor=by), None, now, now)
    if found.gone or found.flow_file is None:
        raise errors.UsageError(found.gone or (found.failure.sentence if found.failure else ""), code="no-flow")
    return Startable(found.event, found.flow_file)


def run_flow(
    master: Master, project_name: str, flow: str, ref: str, inputs: Mapping[str, str], by: str, commit: str = ""
) -> int:
    """Start a flow by hand at what `startable` looks at, and return the run's number.

    Asks the remote, so it is not for the writer thread. Raises NotFound, UsageError, Refused, and what git raises.
    """
    with master.database.read() as conn:
        project = projects.by_name(conn, project_name)
    if project is None:
        raise errors.NotFound(f"there is no project {quoted(project_name)}")
    found = startable(master, project, ref, by, commit)
    chosen = _choose(found.flow_file, flow, found.event)
    event = replace(found.event, inputs=given_inputs(chosen, inputs))
    plan = planning.plan(chosen, found.flow_file)

    def start(tx: Tx) -> int:
        now, trust = clock.now(), runs.trust_of(tx.conn, project, event)
        run_id = runs.add(tx, master, project, event, plan, trust=trust, why=f"started by {by}", now=now)
        dispatch.advance(tx, master, run_id, now)
        return stored_runs.by_id(tx.conn, run_id).number

    return master.writer.call(start)


def approve_run(tx: Tx, master: Master, run_id: int, by: str, now: int) -> Answer:
    """Let a run of somebody else's code begin; raises Refused for one that waits for no approval."""
    run = stored_runs.by_id(tx.conn, run_id)
    if run.state in FINAL or not dispatch.waits_for_approval(run):
        raise errors.Refused(f"this run waits for nobody's approval{_asking(tx, run)}", code="no-approval")
    stored_runs.approve(tx.conn, run_id, by)
    events.add(tx, now, "run-approved", actor=by, project_id=run.project_id, run_id=run.id, data={"sha": run.event.tip})
    dispatch.advance(tx, master, run_id, now)
    return Answer("approved", f"{run.event.tip[:12]} may run, without secrets, push logins and Docker")


def _asking(tx: Tx, run: Run) -> str:
    """Name the jobs of a run that wait for an answer of their own."""
    asking = [
        job.key
        for job in jobs.of_run(tx.conn, run.id)
        if (job.state, job.reason_code) == (State.WAITING, dispatch.APPROVAL)
    ]
    return f"; its job {listed(asking)} does: name it, too" if asking else ""


def lapse_approvals(tx: Tx, master: Master, now: int) -> None:
    """End the runs of forks that nobody has let begin for two weeks: no yes is never a yes."""
    for run in stored_runs.unapproved(tx.conn, now - APPROVAL_WAITS):
        runs.stop(tx, master, run, State.CANCELLED, Reason("not-approved", "nobody approved it in two weeks"), now)
        dispatch.ended(tx, master, run, now)


def cancel_run(tx: Tx, master: Master, run_id: int, by: str, now: int) -> Answer:
    """Ask for a run to be cancelled and say what becomes of that: state first, agent second; a deployment goes on."""
    run = stored_runs.by_id(tx.conn, run_id)
    word = runs.stop(tx, master, run, State.CANCELLED, Reason("cancelled", f"cancelled by {by}"), now)
    if word != runs.ENDED:
        events.add(tx, now, "run-cancel", actor=by, project_id=run.project_id, run_id=run.id, data={"word": word})
        dispatch.ended(tx, master, run, now)
    return Answer(word, _CANCEL_SENTENCES[word].format(state=run.state.value))


_CANCEL_SENTENCES = {
    runs.CANCELLED: "nothing of it was running; it is cancelled",
    runs.STOPPING: "cancelled; the agent was told to stop the script and everything it started",
    runs.TOO_LATE: "too late: its deployment was sent and goes on by itself; nothing after it will start. Roll back?",
    runs.ENDED: "it had ended before ({state})",
}


def _resolve(master: Master, project: Project, ref: str) -> tuple[str, str]:
    """Return the full name and the commit of a branch or tag at the remote."""
    refs = master.mirrors.heads(project)
    wanted = (ref,) if ref.startswith("refs/") else (f"refs/heads/{ref}", f"refs/tags/{ref}") if ref else MAIN_BRANCHES
    for full in wanted:
        if full in refs:
            return full, refs[full]
    short = [name.removeprefix("refs/heads/") for name in refs if name.startswith("refs/heads/")]
    if not ref:
        some = f"say which branch (--ref), such as {listed([quoted(name) for name in sorted(short)[:_SOME]])}"
        sentence = f"{project.name} has neither a branch main nor master; {some if short else 'push one first'}"
        raise errors.NotFound(sentence, code="no-ref")
    raise errors.NotFound(f"{project.name} has no branch or tag {quoted(ref)}{did_you_mean(ref, short)}", code="no-ref")


def _commit(master: Master, project: Project, full: str, start: str) -> str:
    """Return the commit of a ref whose id begins like this; code of other refs is never reached by it."""
    if not _COMMIT.fullmatch(start):
        raise errors.UsageError(f"{quoted(start)} is no commit: write 7 or more digits of its id", code="bad-commit")
    head = master.mirrors.fetch(project, full).head
    found = master.mirrors.commit(project, head, start) if head else None
    if found is None:
        sentence = f"{quoted(full)} has no commit {start}, or more than one that begins like this"
        raise errors.NotFound(sentence, code="no-commit")
    return found


def _choose(flow_file: FlowFile, flow: str, event: Event) -> Flow:
    if flow not in flow_file.flows:
        names = ", ".join(flow_file.flows)
        raise errors.NotFound(
            f"there is no flow {quoted(flow)} at {quoted(event.ref)}; there are: {names}", code="no-flow"
        )
    decision = matching.match(event, flow_file)
    if flow in decision.why_not:
        sentence = f"{flow}: {decision.why_not[flow]}; `on: {{manual: true}}` in the flow file lets people start it"
        raise errors.Refused(sentence, code="not-manual")
    return flow_file.flows[flow]
