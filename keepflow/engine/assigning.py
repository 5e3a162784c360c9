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
from keepflow.store.runs import Run
from keepflow.store.writer import Tx

#: Reason code of a job that no connected agent can take at all.
NO_AGENT = "no-agent"
#: Reason code of a job whose turn comes when somebody else's job ends.
NO_SLOT = "no-slot"
#: Jobs that are given their sentence when nobody is free; the ones far behind keep the one they have.
_PAGE = 64


@dataclass(slots=True)
class _Worker:
    """A connected agent that runs script jobs, and what keeps it busy."""

    agent: Agent
    busy: list[str] = field(default_factory=list)  #: names of the runs whose jobs it holds

    @property
    def free(self) -> int:
        return self.agent.slots - len(self.busy)


def assign(tx: Tx, master: Master, now: int) -> set[int]:
    """Hand out queued script jobs, oldest first, and return the runs whose jobs were given away or a new sentence."""
    touched = set[int]()
    page = jobs.waiting_for_agents(tx.conn, NO_AGENT, 0, _PAGE)
    if not page:
        return touched
    workers = _workers(tx.conn)
    while page:
        for job in page:
            if _place(tx, master, job, workers, now):
                touched.add(job.run_id)
        if len(page) < _PAGE or all(worker.free <= 0 for worker in workers):
            break
        page = jobs.waiting_for_agents(tx.conn, NO_AGENT, page[-1].id, _PAGE)
    return touched


def _workers(conn: Connection) -> list[_Worker]:
    able = [agent for agent in agents.every(conn) if agent.connected and agent.revoked_at is None]
    workers = {agent.id: _Worker(agent) for agent in able if "run" in agent.capabilities}
    for held in jobs.holdings(conn):
        if held.kind == JobKind.SCRIPT and held.agent_id in workers:
            workers[held.agent_id].busy.append(f"{held.project}#{held.number}")
    return list(workers.values())


def _place(tx: Tx, master: Master, job: Job, workers: Sequence[_Worker], now: int) -> bool:
    """Give one job to an agent or tell it what it waits for; False when nothing about it changed."""
    run = runs.by_id(tx.conn, job.run_id)
    kinds = {step["kind"] for step in job.spec["steps"]}
    able = [
        worker for worker in workers if run.agent_id in (None, worker.agent.id) and kinds <= worker.agent.step_kinds
    ]
    free = [worker for worker in able if worker.free > 0]
    if free:
        chosen = max(free, key=lambda worker: worker.free)
        return _hand_out(tx, master, job, run, chosen, now)
    state = State.QUEUED if able else State.WAITING
    reason = _busy(able) if able else _nobody(tx.conn, run, kinds, workers)
    if (job.state, job.reason) == (state, reason.sentence):
        return False
    return jobs.move(tx.conn, job.id, state, reason)


def _hand_out(tx: Tx, master: Master, job: Job, run: Run, worker: _Worker, now: int) -> bool:
    if job.state == State.WAITING:
        jobs.move(tx.conn, job.id, State.QUEUED, Reason("ready", "an agent is free"))
    if not jobs.claim(tx.conn, job.id):
        return False
    agent, project = worker.agent, projects.by_id(tx.conn, run.project_id)
    token = tokens.new("job")
    attempt = jobs.add_attempt(tx.conn, job.id, agent.id, now, token_hash=tokens.digest(token))
    runs.bind_agent(tx.conn, run.id, agent.id)
    sending.send(tx, master, agent.id, joborder.order(tx.conn, master, project, run, job, attempt, token), now)
    data = {"job": job.key, "agent": agent.name, "fence": attempt.fence, "attempt": attempt.n}
    events.add(tx, now, "job-assigned", project_id=project.id, run_id=run.id, agent_id=agent.id, data=data)
    tx.after_commit(partial(master.wakes.fire, f"run:{run.id}"))
    worker.busy.append(f"{project.name}#{run.number}")
    return True


def _busy(able: Sequence[_Worker]) -> Reason:
    slots, held = sum(worker.agent.slots for worker in able), [name for worker in able for name in worker.busy]
    if not slots:
        return Reason(NO_SLOT, f"waits: {_names(able)} takes no jobs now (0 slots)")
    owners = f" by {', '.join(held[:3])}{' and others' if len(held) > 3 else ''}" if held else ""
    return Reason(NO_SLOT, f"waits for a free slot on {_names(able)} ({len(held)} of {slots} busy{owners})")


def _nobody(conn: Connection, run: Run, kinds: set[str], workers: Sequence[_Worker]) -> Reason:
    if run.agent_id is not None and all(worker.agent.id != run.agent_id for worker in workers):
        name = agents.by_id(conn, run.agent_id).name
        return Reason(NO_AGENT, f"agent {name}, which holds the files of this run, is not connected")
    if not workers:
        known = [agent.name for agent in agents.every(conn) if "run" in agent.capabilities and not agent.revoked_at]
        which = f" ({', '.join(known)} {'is' if len(known) == 1 else 'are'} offline)" if known else ""
        return Reason(NO_AGENT, f"no agent with capability run is connected{which}")
    return Reason(NO_AGENT, f"no connected agent knows the step{'s' * (len(kinds) > 1)} {', '.join(sorted(kinds))}")


def _names(workers: Sequence[_Worker]) -> str:
    if len(workers) == 1:
        return workers[0].agent.name
    return f"one of {len(workers)} agents"
