"""The decision about a delivery: which flows it starts and why, as runs, in one transaction with its mark."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from keepflow.core import planning
from keepflow.core.events import Event, EventKind
from keepflow.core.flows import FlowFile
from keepflow.core.states import Reason, State
from keepflow.engine import dispatch, repository, runs
from keepflow.engine.context import Master
from keepflow.engine.repository import Found
from keepflow.store import deliveries, heads, projects
from keepflow.store import runs as stored_runs
from keepflow.store.deliveries import Delivery
from keepflow.store.projects import Project
from keepflow.store.runs import Run
from keepflow.store.writer import Tx

#: `forge` of deliveries that the reconcile sweep made because a hook was lost.
SWEEP = "sweep"


def decided(
    sentence: str, started: list[dict[str, Any]] | None = None, why_not: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return a decision as it is stored: the sentence, the runs that were started, and why other flows were not."""
    return {"sentence": sentence, "runs": started or [], "not": dict(why_not or {})}


def handle(master: Master, delivery_id: int, now: int) -> None:
    """Handle one delivery; one that was handled before changes nothing.

    Raises CommandFailed or BadRemote when the remote cannot be asked now; the delivery waits then.
    """
    with master.database.read() as conn:
        delivery = deliveries.by_id(conn, delivery_id)
        if delivery is None or delivery.handled or delivery.event is None:
            return
        project = projects.by_id(conn, delivery.project_id)
        taken = heads.get(conn, project.id, delivery.event.ref)
    found = repository.look(master, project, delivery.event, taken, delivery.received_at, now)
    master.writer.call(lambda tx: _decide(tx, master, project, delivery, found, now))


def _decide(tx: Tx, master: Master, project: Project, delivery: Delivery, found: Found, now: int) -> None:
    current = deliveries.by_id(tx.conn, delivery.id)
    if current is None or current.handled:
        return
    decision = _Deciding(tx, master, project, delivery, found, now).decide()
    deliveries.decide(tx.conn, delivery.id, decision, now)
    tx.after_commit(partial(master.wakes.fire, "events"))


@dataclass(slots=True)
class _Deciding:
    """Turns one event into runs and a decision, inside of the transaction."""

    tx: Tx
    master: Master
    project: Project
    delivery: Delivery
    found: Found
    now: int
    started: list[dict[str, Any]] = field(default_factory=list)

    @property
    def event(self) -> Event:
        return self.found.event

    @property
    def _taken(self) -> str | None:
        """The commit last taken of this ref."""
        return heads.get(self.tx.conn, self.project.id, self.event.ref)

    def decide(self) -> dict[str, Any]:
        """Make the runs and return the decision."""
        if self.found.gone:
            if self.found.head is None:
                heads.drop(self.tx.conn, self.project.id, self.event.ref)
            return decided(f"nothing was built: {self.found.gone}")
        if self.delivery.forge == SWEEP and self._taken == self.event.sha:
            return decided("its hook came in time after all")
        swept = self._swept_before()
        if swept:
            self.started = [_entry(run) for run in swept]
            return decided(f"the sweep had found this push before its hook came: {_names(self.started)}", self.started)
        if self.found.newer is None:
            heads.put(self.tx.conn, self.project.id, self.event.ref, self.event.sha, self.now)
        if self.found.flow_file is None:
            return self._failed(self.found.failure or Reason("config", "the flow file cannot be read"))
        return self._matched(self.found.flow_file)

    def _swept_before(self) -> list[Run]:
        """Return the runs of this very head when the sweep handled it before its late hook came."""
        event, conn = self.event, self.tx.conn
        if self.delivery.forge == SWEEP or self._taken != event.sha:
            return []
        before = stored_runs.of_commit(conn, self.project.id, event.ref, event.sha)
        first = {run.id: deliveries.by_id(conn, run.delivery_id) for run in before if run.delivery_id}
        return [run for run in before if (found := first.get(run.id)) is not None and found.forge == SWEEP]

    def _failed(self, reason: Reason) -> dict[str, Any]:
        self._end(runs.NO_FLOW, State.FAILED, reason, "the commit has no usable flow file", log=self.found.log)
        return decided(reason.sentence, self.started)

    def _matched(self, flow_file: FlowFile) -> dict[str, Any]:
        decision = planning.match(self.event, flow_file)
        skip = planning.skip_word(self.event.message) if self.event.kind == EventKind.PUSH else None
        for match in decision.matches:
            if skip is not None:
                reason = Reason("skip-word", f"the commit message asks to skip it: {skip}")
                self._end(match.flow, State.SKIPPED, reason, match.why)
            elif self.found.newer is not None:
                self._late(match, self.found.newer)
            else:
                self._start(match, flow_file)
        sentence = decision.reason.sentence if decision.reason else _names(self.started)
        return decided(sentence, self.started, decision.why_not)

    def _late(self, match: planning.Match, newer: str) -> None:
        later = stored_runs.of_commit(self.tx.conn, self.project.id, self.event.ref, newer)
        by = f"{self.project.name}#{later[-1].number}" if later else "a newer push"
        sentence = f"superseded by {by}: {self.event.ref} was at {newer[:12]} already when this push was told"
        reason = Reason("superseded", sentence)
        self._end(match.flow, State.SUPERSEDED, reason, match.why, by=later[-1].id if later else None)

    def _start(self, match: planning.Match, flow_file: FlowFile) -> None:
        run_id = runs.add(
            self.tx,
            self.master,
            self.project,
            self.event,
            planning.plan(flow_file.flows[match.flow], flow_file),
            trust=runs.trust_of(self.tx.conn, self.project, self.event),
            why=match.why,
            now=self.now,
            delivery_id=self.delivery.id,
        )
        dispatch.advance(self.tx, self.master, run_id, self.now)
        self.started.append(_entry(stored_runs.by_id(self.tx.conn, run_id)))

    def _end(self, flow: str, state: State, reason: Reason, why: str, *, by: int | None = None, log: str = "") -> None:
        run_id = runs.add_ended(
            self.tx,
            self.master,
            self.project,
            self.event,
            flow,
            state,
            reason,
            why=why,
            now=self.now,
            delivery_id=self.delivery.id,
            superseded_by=by,
            log=log,
        )
        self.started.append(_entry(stored_runs.by_id(self.tx.conn, run_id)))


def _entry(run: Run) -> dict[str, Any]:
    return {"flow": run.flow, "run": run.number, "why": run.why}


def _names(started: list[dict[str, Any]]) -> str:
    return ", ".join(f"#{entry['run']} {entry['flow']} ({entry['why']})" for entry in started)
