"""Handing script jobs to agents: who is free and able, under which fence, and the sentence of everybody who waits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from sqlalchemy import Connection

from keepflow.core.flows import JobKind
from keepflow.core.states import Reason, State
from keepflow.crypto import tokens
from keepflow.engine import joborder, sending
from keepflow.engine.context import Master
from keepflow.store import agents, events, jobs, projects, runs
from keepflow.store.agents import Agent
from keepflow.store.jobs import Job
from keepflow.store.writer import Tx
from keepflow.wire.messages import CONTAINERS

#: Reason code of a job that no connected agent can take at all.
NO_AGENT = "no-agent"
#: Reason code of a job whose turn comes when somebody else's job ends.
NO_SLOT = "no-slot"
_LEAST = -(2**62)  #: below every rank
#: Jobs read at once; when nobody is free, only the first page is looked at, the ones behind keep their sentence.
_PAGE = 32
#: Jobs at the front of the line whose sentence names the runs that keep the agents busy; that changes with every end.
_FRONT = 3


@dataclass(slots=True)
class _Worker:
    """A connected agent that runs script jobs, and what keeps it busy."""

    agent: Agent
    busy: list[str] = field(default_factory=list)  #: names of the runs whose jobs it holds

    @property
    def free(self) -> int:
        return self.agent.slots - len(self.busy)


def assign(tx: Tx, master: Master, now: int) -> set[int]:
    """Hand out queued script jobs by their rank, and return the runs whose jobs were given away or a new sentence."""
    touched, in_line = set[int](), 0
    page = jobs.waiting_for_agents(tx.conn, NO_AGENT, (_LEAST, 0), _PAGE)
    workers = _workers(tx.conn) if page else []
    while page:
        for job, holder in page:
            able = _able(job, holder, workers)
            free = [worker for worker in able if worker.free > 0]
            if free:
                changed = _hand_out(tx, master, job, max(free, key=lambda worker: worker.free), now)
            else:
                changed, in_line = _explain(tx.conn, job, holder, able, workers, in_line), in_line + 1
            if changed:
                touched.add(job.run_id)
        if len(page) < _PAGE or all(worker.free <= 0 for worker in workers):
            break
        last = page[-1][0]
        page = jobs.waiting_for_agents(tx.conn, NO_AGENT, (last.rank, last.id), _PAGE)
    return touched


def _workers(conn: Connection) -> list[_Worker]:
    able = [agent for agent in agents.every(conn) if agent.connected and agent.revoked_at is None]
    workers = {agent.id: _Worker(agent) for agent in able if "run" in agent.capabilities}
    for held in jobs.holdings(conn):
        if held.kind == JobKind.SCRIPT and held.agent_id in workers:
            workers[held.agent_id].busy.append(f"{held.project}#{held.number}")
    return list(workers.values())


def _able(job: Job, holder: int | None, workers: Sequence[_Worker]) -> list[_Worker]:
    """Return who could run a job if it had a free slot; a run stays on the agent that holds its files."""
    kinds = _kinds(job)
    return [worker for worker in workers if holder in (None, worker.agent.id) and kinds <= worker.agent.step_kinds]


def _kinds(job: Job) -> set[str]:
    kinds = {step["kind"] for step in job.spec["steps"]}
    if job.spec.get("where") or any(step.get("where") for step in job.spec["steps"]):
        kinds.add(CONTAINERS)
    return kinds


def _explain(
    conn: Connection, job: Job, holder: int | None, able: Sequence[_Worker], workers: Sequence[_Worker], in_line: int
) -> bool:
    """Tell a job what it waits for, when so many wait before it; False when it knows that already."""
    state = State.QUEUED if able else State.WAITING
    reason = _busy(able, named=in_line < _FRONT) if able else _nobody(conn, job, holder, workers)
    if (job.state, job.reason) == (state, reason.sentence):
        return False
    return jobs.move(conn, job.id, state, reason)


def _hand_out(tx: Tx, master: Master, job: Job, worker: _Worker, now: int) -> bool:
    if job.state == State.WAITING:
        jobs.move(tx.conn, job.id, State.QUEUED, Reason("ready", "an agent is free"))
    if not jobs.claim(tx.conn, job.id):
        return False
    agent, run = worker.agent, runs.by_id(tx.conn, job.run_id)
    project = projects.by_id(tx.conn, run.project_id)
    token = tokens.new("job")
    attempt = jobs.add_attempt(tx.conn, job.id, agent.id, now, token_hash=tokens.digest(token))
    runs.bind_agent(tx.conn, run.id, agent.id)
    sending.send(
        tx, master, agent.id, joborder.order(tx.conn, master, project, run, job, attempt, agent.name, token), now
    )
    data = {"job": job.key, "agent": agent.name, "fence": attempt.fence, "attempt": attempt.n}
    events.add(tx, now, "job-assigned", project_id=project.id, run_id=run.id, agent_id=agent.id, data=data)
    tx.after_commit(partial(master.wakes.fire, f"run:{run.id}"))
    worker.busy.append(f"{project.name}#{run.number}")
    return True


def _busy(able: Sequence[_Worker], *, named: bool) -> Reason:
    slots, held = sum(worker.agent.slots for worker in able), [name for worker in able for name in worker.busy]
    if not slots:
        return Reason(NO_SLOT, f"waits: {_names(able)} takes no jobs now (0 slots)")
    owners = f" by {', '.join(held[:3])}{' and others' if len(held) > 3 else ''}" if held and named else ""
    return Reason(NO_SLOT, f"waits for a free slot on {_names(able)} ({len(held)} of {slots} busy{owners})")


def _nobody(conn: Connection, job: Job, holder: int | None, workers: Sequence[_Worker]) -> Reason:
    kinds = _kinds(job)
    if holder is not None and all(worker.agent.id != holder for worker in workers):
        name = agents.by_id(conn, holder).name
        return Reason(NO_AGENT, f"agent {name}, which holds the files of this run, is not connected")
    if not workers:
        known = [agent.name for agent in agents.every(conn) if "run" in agent.capabilities and not agent.revoked_at]
        which = f" ({', '.join(known)} {'is' if len(known) == 1 else 'are'} offline)" if known else ""
        return Reason(NO_AGENT, f"no agent with capability run is connected{which}")
    if CONTAINERS in kinds and not any(CONTAINERS in worker.agent.step_kinds for worker in workers):
        sentence = "no connected agent gives flows containers (image, services); see containers: in its agent.yml"
        return Reason(NO_AGENT, sentence)
    kinds.discard(CONTAINERS)
    return Reason(NO_AGENT, f"no connected agent knows the step{'s' * (len(kinds) > 1)} {', '.join(sorted(kinds))}")


def _names(workers: Sequence[_Worker]) -> str:
    if len(workers) == 1:
        return workers[0].agent.name
    return f"one of {len(workers)} agents"
