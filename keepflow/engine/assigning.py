"""Handing script jobs to agents: who is free and able, under which fence, and the sentence of everybody who waits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from sqlalchemy import Connection

from keepflow.core import queueing
from keepflow.core.flows import JobKind
from keepflow.core.queueing import Seat
from keepflow.core.states import Reason, State
from keepflow.crypto import tokens
from keepflow.engine import joborder, sending, spanning
from keepflow.engine.context import Master
from keepflow.engine.joborder import Given
from keepflow.store import agents, counters, events, jobs, projects, runs
from keepflow.store.agents import Agent
from keepflow.store.jobs import Job, NewAttempt
from keepflow.store.writer import Tx
from keepflow.wire.messages import CONTAINERS, SSH

#: Reason code of a job that no connected agent can take at all.
NO_AGENT = "no-agent"
#: Reason code of a job whose turn comes when somebody else's job ends.
NO_SLOT = "no-slot"
#: Jobs looked at once; when nobody is free, only the first page is looked at, the ones behind keep their sentence.
_PAGE = 32
#: Agents whose absence a sentence explains.
_NAMED = 3
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

    @property
    def seat(self) -> Seat:
        agent = self.agent
        return Seat(agent.id, frozenset(agent.labels), agent.step_kinds, agent.slots, self.free)


def assign(tx: Tx, master: Master, now: int, *, anew: bool = True) -> set[int]:
    """Hand out queued script jobs, each project in its turn, and return the runs that got something or a new sentence.

    A job that nobody can take now is passed over: those behind it have other agents, or none that is busy. Unless all
    is looked at `anew`, because agents changed, who waits for a slot already and is not at the front is left alone.
    """
    found = jobs.waiting_for_agents(tx.conn, NO_AGENT)
    if not found:
        return set()
    workers, holding = _workers(tx.conn)
    order = queueing.in_turn([waiting for waiting, _ in found], holding)
    known = set() if anew else {waiting.job for waiting, code in found if code == NO_SLOT}
    looking = _Looking(tx.conn, workers)
    at = 0
    while at < len(order) and (looking.free or at < _PAGE):
        size = min(_PAGE, looking.free + _FRONT) if looking.free else _PAGE
        page, at = order[at : at + size], at + size
        if not looking.free:
            page = [job for place, job in enumerate(page, looking.in_line) if place < _FRONT or job not in known]
        looking.look(page)
    _hand_out(tx, master, looking.chosen, now)
    return looking.touched


class _Looking:
    """Looks for an agent for each job, in their order; `chosen` are the jobs that get one."""

    def __init__(self, conn: Connection, workers: Sequence[_Worker]) -> None:
        self._conn, self._workers = conn, workers
        self._bound: dict[int, int] = {}
        self.chosen: list[tuple[Job, _Worker]] = []
        self.touched: set[int] = set()
        self.in_line = 0

    @property
    def free(self) -> int:
        """How many slots are free."""
        return sum(max(0, worker.free) for worker in self._workers)

    def look(self, job_ids: Sequence[int]) -> None:
        """Choose an agent for each of these jobs, or tell it what it waits for."""
        found = jobs.in_order(self._conn, job_ids)
        places = runs.places(self._conn, {job.run_id for job in found})
        for job in found:
            place = places[job.run_id]
            holder = _holder(self._conn, job, self._bound.get(job.run_id, place.agent_id))
            able = _able(self._conn, job, holder, self._workers)
            agent_id = queueing.choose([worker.seat for worker in able])
            if agent_id is not None:
                worker = next(one for one in able if one.agent.id == agent_id)
                worker.busy.append(place.name)
                self._bound.setdefault(job.run_id, agent_id)
                self.chosen.append((job, worker))
                self.touched.add(job.run_id)
                continue
            if _explain(self._conn, job, holder, able, self._workers, self.in_line):
                self.touched.add(job.run_id)
            self.in_line += 1


def _workers(conn: Connection) -> tuple[list[_Worker], Counter[int]]:
    """Return the connected agents that run script jobs, and how many jobs of each project are with agents."""
    able = [agent for agent in agents.every(conn) if agent.connected and agent.revoked_at is None]
    workers = {agent.id: _Worker(agent) for agent in able if "run" in agent.capabilities}
    holding = Counter[int]()
    for held in jobs.holdings(conn):
        if held.kind == JobKind.SCRIPT:
            holding[held.project_id] += 1
            if held.agent_id in workers:
                workers[held.agent_id].busy.append(f"{held.project}#{held.number}")
    return list(workers.values()), holding


def _able(conn: Connection, job: Job, holder: int | None, workers: Sequence[_Worker]) -> list[_Worker]:
    """Return who could run a job if it had a free slot.

    A run stays on the agent that holds its files, also while that one is drained: it ends there what it began. A job
    goes elsewhere when that agent can never take it, and the files it goes on with were handed on (`spanning`).
    """
    labels, kinds = frozenset(job.spec["labels"]), spanning.kinds_of(job)
    fit = [worker for worker in workers if queueing.fits(worker.seat, labels, kinds)]
    staying = [worker for worker in fit if worker.agent.id == holder]
    if holder is not None and (staying or not _may_leave(conn, job, holder)):
        return staying
    return [worker for worker in fit if not worker.agent.drained_by]


def _may_leave(conn: Connection, job: Job, holder: int) -> bool:
    """Say whether a job may go to another agent than the one that holds the files of its run."""
    if not job.needs and job.spec["labels"]:
        return True
    return not spanning.can(agents.by_id(conn, holder), job) and spanning.reachable(conn, job)


def _holder(conn: Connection, job: Job, agent_of_run: int | None) -> int | None:
    """Return the agent that a job goes on at: where the jobs it needs left their files, else where its run began."""
    found = jobs.agents_of(conn, job.run_id, job.needs) if job.needs and job.spec["labels"] else set[int]()
    return found.pop() if len(found) == 1 else agent_of_run


def _explain(
    conn: Connection, job: Job, holder: int | None, able: Sequence[_Worker], workers: Sequence[_Worker], in_line: int
) -> bool:
    """Tell a job what it waits for, when so many wait before it; False when it knows that already."""
    state = State.QUEUED if able else State.WAITING
    reason = _busy(able, named=in_line < _FRONT) if able else _nobody(conn, job, holder, workers)
    if (job.state, job.reason) == (state, reason.sentence):
        return False
    return jobs.move(conn, job.id, state, reason)


def _hand_out(tx: Tx, master: Master, chosen: Sequence[tuple[Job, _Worker]], now: int) -> None:
    """Claim jobs and write down their orders."""
    if not chosen:
        return
    found = runs.by_ids(tx.conn, {job.run_id for job, _ in chosen})
    owners = {one: projects.by_id(tx.conn, one) for one in {run.project_id for run in found.values()}}
    tries = jobs.tries(tx.conn, [job.id for job, _ in chosen])
    orders, told, homes = joborder.Orders(tx.conn, master), list[events.Told](), dict[int, int]()
    for fence, (job, worker) in enumerate(chosen, counters.next_value(tx.conn, counters.FENCE, len(chosen))):
        agent, run = worker.agent, found[job.run_id]
        if job.state == State.WAITING:
            jobs.move(tx.conn, job.id, State.QUEUED, Reason("ready", "an agent is free"))
        if not jobs.claim(tx.conn, job.id):
            continue
        project, token = owners[run.project_id], tokens.new("job")
        new = NewAttempt(job.id, tries.get(job.id, 0) + 1, fence, f"{project.name}/{run.number}/{job.key}")
        attempt = jobs.add_numbered(tx.conn, new, agent.id, now, tokens.digest(token))
        if run.agent_id is None and run.id not in homes:
            runs.bind_agent(tx.conn, run.id, agent.id)
        home = homes.setdefault(run.id, run.agent_id or agent.id)
        projects.serve(tx.conn, project.id, fence)
        sending.send(tx, master, agent.id, orders.order(project, run, job, attempt, Given(agent, home, token)), now)
        data = {"job": job.key, "agent": agent.name, "fence": fence, "attempt": attempt.n}
        told.append(events.Told(project.id, run.id, data, agent_id=agent.id))
    events.add_all(tx, now, "job-assigned", told)
    for run_id in found:
        tx.after_commit(partial(master.wakes.fire, f"run:{run_id}"))


def _busy(able: Sequence[_Worker], *, named: bool) -> Reason:
    slots, held = sum(worker.agent.slots for worker in able), [name for worker in able for name in worker.busy]
    if not slots:
        return Reason(NO_SLOT, f"waits: {_names(able)} takes no jobs now (0 slots)")
    owners = f" by {', '.join(held[:3])}{' and others' if len(held) > 3 else ''}" if held and named else ""
    return Reason(NO_SLOT, f"waits for a free slot on {_names(able)} ({len(held)} of {slots} busy{owners})")


def _nobody(conn: Connection, job: Job, holder: int | None, workers: Sequence[_Worker]) -> Reason:
    """Say why no connected agent can take a job: the first thing that is missing."""
    if holder is not None and all(worker.agent.id != holder for worker in workers):
        agent = agents.by_id(conn, holder)
        return Reason(NO_AGENT, f"agent {agent.name}, which holds the files of this run, {_absence(agent)}")
    known = [agent for agent in agents.every(conn) if "run" in agent.capabilities and not agent.revoked_at]
    labels = frozenset(job.spec["labels"])
    if labels:
        having = [agent for agent in known if labels <= set(agent.labels)]
        missing = f"the label{'s' * (len(labels) > 1)} {', '.join(sorted(labels))}"
        if holder is not None and all(agent.id != holder for agent in having):
            name = agents.by_id(conn, holder).name
            return Reason(NO_AGENT, f"agent {name}, which holds the files of this run, has not {missing}")
        if not having:
            return Reason(NO_AGENT, f"no agent has {missing}; an agent's own file gives it labels")
        known = having
    if not any(agent.connected for agent in known):
        which = f" ({'; '.join(f'{agent.name} {_absence(agent)}' for agent in known[:_NAMED])})" if known else ""
        what = f"agent with {missing}" if labels else "agent with capability run"
        return Reason(NO_AGENT, f"no {what} is connected{which}")
    drained = [agent for agent in known if agent.connected and agent.drained_by]
    if len(drained) == len([agent for agent in known if agent.connected]):
        which = ", ".join(f"{agent.name} by {agent.drained_by}" for agent in drained[:_NAMED])
        return Reason(NO_AGENT, f"every agent that could take it is drained ({which})")
    return Reason(NO_AGENT, _unknown_steps(set(spanning.kinds_of(job)), workers))


def _absence(agent: Agent) -> str:
    return f"is offline: {agent.offline_why}" if agent.offline_why else "is offline"


def _unknown_steps(kinds: set[str], workers: Sequence[_Worker]) -> str:
    if CONTAINERS in kinds and not any(CONTAINERS in worker.agent.step_kinds for worker in workers):
        return "no connected agent gives flows containers (image, services); see containers: in its agent.yml"
    kinds.discard(CONTAINERS)
    if hosts := sorted(kind.removeprefix(SSH) for kind in kinds if kind.startswith(SSH)):
        return f"no connected agent reaches {' and '.join(hosts)}; see ssh: in its agent.yml"
    return f"no connected agent knows the step{'s' * (len(kinds) > 1)} {', '.join(sorted(kinds))}"


def _names(workers: Sequence[_Worker]) -> str:
    if len(workers) == 1:
        return workers[0].agent.name
    return f"one of {len(workers)} agents"
