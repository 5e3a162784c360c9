"""The decisions about deliveries: which flows each one starts and why, as runs, in one transaction with its mark.

Deliveries are decided in batches, each with a decision of its own: a storm of hooks about one ref costs one fetch and
one commit, and of the runs that a later one of the same batch takes the place of, only the last one begins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import takewhile
from typing import Any

from sqlalchemy import Connection

from keepflow import errors
from keepflow.core import matching, planning
from keepflow.core.flows import NO_FLOW, FlowFile, Plan
from keepflow.core.states import Reason, State
from keepflow.engine import dispatch, repository, runs
from keepflow.engine.context import Master
from keepflow.engine.repository import Found, Told
from keepflow.engine.runs import Superseded
from keepflow.store import deliveries, heads, projects
from keepflow.store import runs as stored_runs
from keepflow.store.deliveries import Delivery
from keepflow.store.projects import Project
from keepflow.store.runs import Run
from keepflow.store.writer import Tx

#: `forge` of deliveries that the reconcile sweep made because a hook was lost.
SWEEP = "sweep"
#: `forge` of deliveries that a person asked for once more.
REPLAY = "replay"
#: Runs that one transaction makes one by one; meanwhile nobody else can commit.
_RUNS = 16


@dataclass(frozen=True, slots=True)
class Stuck:
    """A delivery that must wait, because its remote cannot be asked now."""

    delivery: Delivery
    error: errors.KeepflowError


def decided(
    sentence: str, started: list[dict[str, Any]] | None = None, why_not: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return a decision as it is stored: the sentence, the runs that were started, and why other flows were not."""
    return {"sentence": sentence, "runs": started or [], "not": dict(why_not or {})}


def handle(master: Master, ids: Sequence[int], now: int) -> Stuck | None:
    """Handle these deliveries of one project, or as many of them as one transaction may; return who is in the way.

    Those of one ref are handled in their order. One that was handled before changes nothing.
    """
    with master.database.read() as conn:
        batch = [found for found in deliveries.unhandled(conn, ids) if found.event is not None]
        if not batch:
            return None
        project = projects.by_id(conn, batch[0].project_id)
        turns = [(turn, heads.get(conn, project.id, _ref(turn[0]))) for turn in _turns(batch)]
    looked: list[tuple[Delivery, Found]] = []
    stuck = None
    for turn, taken in turns:
        told = [Told(delivery.event, delivery.received_at) for delivery in turn if delivery.event]
        try:
            looked += zip(turn, repository.look_all(master, project, told, taken, now), strict=True)
        except errors.KeepflowError as error:
            stuck = Stuck(turn[0], error)
            break
    if looked:
        master.writer.call(lambda tx: _decide(tx, master, project, looked, now))
    return stuck


def _turns(batch: Sequence[Delivery]) -> list[list[Delivery]]:
    """Return the deliveries by ref, the fewest first."""
    groups: dict[str, list[Delivery]] = {}
    for delivery in batch:
        groups.setdefault(_ref(delivery), []).append(delivery)
    return [_apart(group) for group in sorted(groups.values(), key=len)]


def _apart(group: list[Delivery]) -> list[Delivery]:
    """Leave out what follows a sweep's delivery or follows up to one: these two look at what the other made."""
    return group[:1] if group[0].forge == SWEEP else list(takewhile(lambda found: found.forge != SWEEP, group))


def _ref(delivery: Delivery) -> str:
    return delivery.event.ref if delivery.event else ""


def _decide(tx: Tx, master: Master, project: Project, looked: Sequence[tuple[Delivery, Found]], now: int) -> None:
    waiting = deliveries.unhandled_among(tx.conn, [delivery.id for delivery, _ in looked])
    judging = _Judging(tx.conn, project)
    verdicts = [judging.judge(delivery, found) for delivery, found in looked if delivery.id in waiting]
    verdicts = _that_fit(verdicts)
    made = _Making(tx, master, project, now).make(verdicts)
    for ref in {verdict.found.event.ref for verdict in verdicts if verdict.gone}:
        heads.drop(tx.conn, project.id, ref)
    for ref, sha in {verdict.found.event.ref: verdict.takes for verdict in verdicts if verdict.takes}.items():
        heads.put(tx.conn, project.id, ref, sha, now)
    deliveries.decide_all(tx.conn, made, now)
    tx.after_commit(partial(master.wakes.fire, "events"))


@dataclass(slots=True)
class _Wanted:
    """A run that a delivery makes: one that begins when it has a plan, else one that is over at once for a reason.

    With `older_than` it is superseded by the newest run of that commit, with `by` by a run of the same batch.
    """

    flow: str
    why: str
    plan: Plan | None = None
    ended: State | None = None
    reason: Reason | None = None
    log: str = ""
    older_than: str | None = None
    by: _Wanted | None = None
    number: int = 0


@dataclass(slots=True)
class _Verdict:
    """What is to be written about one delivery. `takes` is the commit taken of its ref, `gone` says it has none now."""

    delivery: Delivery
    found: Found
    sentence: str = ""
    before: list[Run] = field(default_factory=list)  #: the runs that the sweep had made of it
    wanted: list[_Wanted] = field(default_factory=list)
    why_not: Mapping[str, str] = field(default_factory=dict)
    takes: str | None = None
    gone: bool = False


class _Judging:
    """Turns what was found out about deliveries into verdicts, one after the other; writes nothing."""

    def __init__(self, conn: Connection, project: Project) -> None:
        self._conn, self._project = conn, project
        self._taken: dict[str, str | None] = {}
        self._swept: dict[tuple[str, str], list[Run]] = {}
        self._matched: dict[tuple[str, str, str, matching.Changes], matching.Decision] = {}
        self._plans: dict[tuple[str, str], Plan] = {}

    def judge(self, delivery: Delivery, found: Found) -> _Verdict:
        """Return the verdict about the next delivery."""
        event, verdict = found.event, _Verdict(delivery, found)
        if event.ref not in self._taken:
            self._taken[event.ref] = heads.get(self._conn, self._project.id, event.ref)
        taken = self._taken[event.ref]
        if found.gone:
            verdict.sentence, verdict.gone = f"nothing was built: {found.gone}", found.head is None
        elif delivery.forge == SWEEP and taken == event.tip:
            verdict.sentence = "its hook came in time after all"
        elif swept := self._swept_before(delivery, found, taken):
            verdict.before = swept
        elif found.own is not None:
            verdict.sentence = found.own
            verdict.takes = event.tip if found.newer is None else None
        else:
            verdict.takes = event.tip if found.newer is None else None
            self._match(verdict)
        self._taken[event.ref] = found.taken_after(taken)
        return verdict

    def _swept_before(self, delivery: Delivery, found: Found, taken: str | None) -> list[Run]:
        """Return the runs of this very head when the sweep handled it before its late hook came."""
        event = found.event
        if delivery.forge in (SWEEP, REPLAY) or taken != event.tip:
            return []
        key = (event.ref, event.sha)
        if key not in self._swept:
            self._swept[key] = stored_runs.of_commit_by(self._conn, self._project.id, event.ref, event.sha, SWEEP)
        return self._swept[key]

    def _match(self, verdict: _Verdict) -> None:
        found, event = verdict.found, verdict.found.event
        if found.flow_file is None:
            reason = found.failure or Reason("config", "the flow file cannot be read")
            why = "the commit has no usable flow file"
            verdict.wanted = [_Wanted(NO_FLOW, why, ended=State.FAILED, reason=reason, log=found.log)]
            verdict.sentence = reason.sentence
            return
        key = (event.kind, event.ref, event.sha, found.changes)
        if key not in self._matched:
            self._matched[key] = matching.match(event, found.flow_file, found.changes)
        decision = self._matched[key]
        verdict.wanted = [self._wanted(found, found.flow_file, match) for match in decision.matches]
        verdict.sentence = decision.reason.sentence if decision.reason else ""
        verdict.why_not = decision.why_not

    def _wanted(self, found: Found, flow_file: FlowFile, match: matching.Match) -> _Wanted:
        event = found.event
        if found.skip is not None:
            reason = Reason("skip-word", f"the commit message asks to skip it: {found.skip}")
            return _Wanted(match.flow, match.why, ended=State.SKIPPED, reason=reason)
        if found.conflict is not None:
            return _Wanted(
                match.flow, match.why, ended=State.FAILED, reason=found.conflict, log=found.conflict.sentence
            )
        if found.newer is not None:
            return _Wanted(match.flow, match.why, ended=State.SUPERSEDED, older_than=found.newer)
        key = (event.sha, match.flow)
        if key not in self._plans:
            self._plans[key] = planning.plan(flow_file.flows[match.flow], flow_file)
        return _Wanted(match.flow, match.why, plan=self._plans[key])


def _that_fit(verdicts: list[_Verdict]) -> list[_Verdict]:
    """Mark the runs that a later one takes the place of, and return as many verdicts as one transaction may write."""
    _supersede(verdicts)
    room = _RUNS
    for number, verdict in enumerate(verdicts):
        room -= sum(wanted.by is None for wanted in verdict.wanted)
        if room < 0 and number:
            verdicts = verdicts[:number]
            _supersede(verdicts)
            break
    return verdicts


def _supersede(verdicts: Sequence[_Verdict]) -> None:
    newest: dict[tuple[str, str], _Wanted] = {}
    for verdict in reversed(verdicts):
        for wanted in verdict.wanted:
            if wanted.plan is None:
                continue
            key = (verdict.found.event.ref, wanted.flow)
            wanted.by = newest.get(key) if wanted.plan.concurrency != dispatch.PARALLEL else None
            if wanted.by is None and wanted.plan.concurrency in (dispatch.LATEST, dispatch.CANCEL):
                newest[key] = wanted


class _Making:
    """Makes the runs of verdicts, in their order and under numbers in that order."""

    def __init__(self, tx: Tx, master: Master, project: Project, now: int) -> None:
        self._tx, self._master, self._project, self._now = tx, master, project, now
        self._gathered: list[Superseded] = []  #: superseded runs that are still to be written
        self._begun: list[int] = []
        self._older: dict[int, list[int]] = {}  #: number of a run → the runs it takes the place of

    def make(self, verdicts: Sequence[_Verdict]) -> dict[int, dict[str, Any]]:
        """Write the runs and return the decision of each delivery, by its row id."""
        first = projects.coming_number(self._tx.conn, self._project.id)
        for number, wanted in enumerate((one for verdict in verdicts for one in verdict.wanted), first):
            wanted.number = number
        for verdict in verdicts:
            for wanted in verdict.wanted:
                self._make(verdict, wanted)
        self._flush()
        dispatch.advance_all(self._tx, self._master, self._begun, self._now)
        return {verdict.delivery.id: _decision(verdict) for verdict in verdicts}

    def _make(self, verdict: _Verdict, wanted: _Wanted) -> None:
        if wanted.plan is None:
            self._flush()
            self._end(verdict, wanted)
        elif wanted.by is None:
            self._flush()
            self._start(verdict, wanted, wanted.plan)
        else:
            event, by = verdict.found.event, wanted.by.number
            sentence = f"superseded by {self._project.name}#{by}, a newer run of {wanted.flow} on {event.ref}"
            reason = Reason("superseded", sentence)
            self._gathered.append(Superseded(event, wanted.flow, reason, wanted.why, verdict.delivery.id, by))

    def _flush(self) -> None:
        if self._gathered:
            gathered, self._gathered = self._gathered, []
            ids = runs.add_superseded(self._tx, self._master, self._project, gathered, self._now)
            for one, run_id in zip(gathered, ids, strict=True):
                self._older.setdefault(one.by, []).append(run_id)

    def _start(self, verdict: _Verdict, wanted: _Wanted, plan: Plan) -> None:
        event, delivery_id = verdict.found.event, verdict.delivery.id
        trust = runs.trust_of(self._tx.conn, self._project, event)
        run_id = runs.add(
            self._tx,
            self._master,
            self._project,
            event,
            plan,
            trust=trust,
            why=wanted.why,
            now=self._now,
            delivery_id=delivery_id,
        )
        stored_runs.point_to_newer(self._tx.conn, self._older.pop(wanted.number, ()), run_id)
        self._begun.append(run_id)

    def _end(self, verdict: _Verdict, wanted: _Wanted) -> None:
        state, reason, by = wanted.ended or State.FAILED, wanted.reason, None
        if wanted.older_than is not None:
            by, reason = self._late(verdict, wanted.older_than)
        runs.add_ended(
            self._tx,
            self._master,
            self._project,
            verdict.found.event,
            wanted.flow,
            state,
            reason or Reason("superseded", "superseded by a newer push"),
            why=wanted.why,
            now=self._now,
            delivery_id=verdict.delivery.id,
            superseded_by=by,
            log=wanted.log,
        )

    def _late(self, verdict: _Verdict, newer: str) -> tuple[int | None, Reason]:
        event = verdict.found.event
        later = stored_runs.last_of_commit(self._tx.conn, self._project.id, event.ref, newer)
        by = f"{self._project.name}#{later.number}" if later else "a newer push"
        sentence = f"superseded by {by}: {event.ref} was at {newer[:12]} already when this push was told"
        return later.id if later else None, Reason("superseded", sentence)


def _decision(verdict: _Verdict) -> dict[str, Any]:
    if verdict.before:
        found = [{"flow": run.flow, "run": run.number, "why": run.why} for run in verdict.before]
        return decided(f"the sweep had found this push before its hook came: {_names(found)}", found)
    started = [{"flow": wanted.flow, "run": wanted.number, "why": wanted.why} for wanted in verdict.wanted]
    return decided(verdict.sentence or _names(started), started, verdict.why_not)


def _names(started: list[dict[str, Any]]) -> str:
    return ", ".join(f"#{entry['run']} {entry['flow']} ({entry['why']})" for entry in started)
