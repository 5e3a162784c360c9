"""Deliveries taken in and handled.

`record` stores a delivery and is all that a webhook waits for. `Intake` takes the stored ones from the table, per
project in the order they came; what the table says is all that counts, so a restart goes on where the last one stopped.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import structlog

from keepflow import errors
from keepflow.core.events import Parsed
from keepflow.core.text import one_line
from keepflow.engine import clock, pulls
from keepflow.engine.context import Master
from keepflow.engine.deciding import decided, handle
from keepflow.store import deliveries
from keepflow.store.deliveries import NewDelivery
from keepflow.store.projects import Project
from keepflow.store.writer import Tx

log = structlog.get_logger(__name__)

#: Parts of header names that hold what proves the sender; such headers are not stored.
_UNSTORED = ("authorization", "cookie", "token", "signature", "secret")
_PROJECTS_AT_ONCE = 4
_FIRST_WAIT, _LONGEST_WAIT = 1.0, 60.0  #: seconds until a remote that did not answer is asked again
_PAUSE = 0.005  #: seconds between two looks that found work
_IDLE_PAUSE = 0.05  #: seconds between two that found none: a storm of hooks must not become a storm of queries
#: Refs in one batch: each costs a fetch, and the first one waits for the last. And deliveries of each: of a storm they
#: keep the one writer busy for some 20 ms.
_REFS, _BATCH = 4, 256
_LULL, _LONGEST_PAUSE = 0.005, 0.1  #: seconds without a hook, and of waiting for that, between two batches
_TRIES = 3  #: of a delivery on which keepflow itself fails


@dataclass(frozen=True, slots=True)
class Recorded:
    """A delivery that is stored; `first` is False for one that was stored before, then the rest is the first one's."""

    id: int
    first: bool
    handled: bool
    parsed: Parsed
    decision: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Call:
    """A webhook call that proved its signature."""

    project: Project
    delivery_id: str
    forge: str
    event_name: str
    headers: Mapping[str, str]
    body: bytes
    parsed: Parsed
    received_at: int


def record(
    tx: Tx,
    master: Master,
    project: Project,
    delivery_id: str,
    forge: str,
    event_name: str,
    headers: Mapping[str, str],
    body: bytes,
    parsed: Parsed,
    now: int,
) -> Recorded:
    """Store a verified delivery; final words are handled at once, events wait for intake."""
    return record_all(tx, master, [Call(project, delivery_id, forge, event_name, headers, body, parsed, now)])[0]


def record_all(tx: Tx, master: Master, calls: Sequence[Call]) -> list[Recorded]:
    """Store verified deliveries that came together, as `record` does with one."""
    news = [_new(call) for call in calls]
    found = [
        _known(tx, call.project, new.delivery)
        if row_id is None
        else Recorded(row_id, True, new.decision is not None, call.parsed, new.decision)
        for call, new, row_id in zip(calls, news, deliveries.add_all(tx.conn, news), strict=True)
    ]
    for call, one in zip(calls, found, strict=True):
        if one.first and call.parsed.closed is not None:
            pulls.closed(tx, master, call.project, one.id, call.parsed, call.received_at)
    if any(one.first and not one.handled for one in found):
        tx.after_commit(partial(master.wakes.fire, "deliveries"))
    if any(one.first and one.parsed.word == "deleted" for one in found):
        tx.after_commit(partial(master.wakes.fire, "projects"))  # what the branch had goes with it
    return found


def _new(call: Call) -> NewDelivery:
    decision = None if call.parsed.event else decided(call.parsed.sentence)
    kept = {name: value for name, value in call.headers.items() if _is_stored(name)}
    return NewDelivery(
        call.project.id,
        call.delivery_id[:200],
        call.forge,
        call.event_name[:60],
        kept,
        call.body,
        call.parsed,
        decision,
        call.received_at,
    )


@lru_cache(256)
def _is_stored(name: str) -> bool:
    return not any(part in name.lower() for part in _UNSTORED)


def _known(tx: Tx, project: Project, delivery: str) -> Recorded:
    known = deliveries.by_delivery(tx.conn, project.id, delivery)
    if known is None:
        raise LookupError("a delivery that was there a moment ago is not")
    sentence = known.decision["sentence"] if known.word and known.decision else ""
    return Recorded(known.id, False, known.handled, Parsed(known.event, known.word, sentence), known.decision)


class Intake:
    """Handles stored deliveries in threads of its own, at most one per project at a time."""

    def __init__(self, master: Master) -> None:
        self._master = master
        self._wake = threading.Event()
        self._heard = 0.0  #: when hooks came in last, in monotonic seconds
        self._stopping = False
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._busy: set[int] = set()
        self._retries: dict[int, _Retry] = {}
        self._failures: Counter[int] = Counter()  #: by delivery, on which keepflow itself fails
        self._subscriptions: list[Callable[[], None]] = []
        self._thread = threading.Thread(target=self._run, name="intake", daemon=True)

    def start(self) -> None:
        """Begin with what an earlier process left unhandled."""
        wakes = self._master.wakes
        self._subscriptions = [wakes.subscribe("deliveries", self._hear), wakes.subscribe("projects", self._forget)]
        self._wake.set()
        self._thread.start()

    def stop(self, timeout: float = 2.0) -> None:
        """Begin nothing more and wait up to `timeout` seconds for what is under way; the rest is handled next time."""
        for unsubscribe in self._subscriptions:
            unsubscribe()
        self._stopping = True
        self._wake.set()
        deadline = time.monotonic() + timeout
        if self._thread.is_alive():
            self._thread.join(timeout)
        with self._idle:
            self._idle.wait_for(lambda: not self._busy, max(0.0, deadline - time.monotonic()))

    def _hear(self) -> None:
        self._heard = time.monotonic()
        self._wake.set()

    def _forget(self) -> None:
        """Try every remote again at once: somebody changed a project."""
        with self._lock:
            self._retries.clear()
        self._wake.set()

    # --- the intake thread: who may work now ---

    def _run(self) -> None:
        while not self._stopping:
            self._wake.wait(self._patience())
            self._wake.clear()
            pause = _IDLE_PAUSE
            try:
                if self._employ():
                    pause = _PAUSE
            except errors.KeepflowError as error:
                log.warning("deliveries cannot be read now", reason=error.message)
                self._wake.wait(_FIRST_WAIT)
            time.sleep(pause)

    def _patience(self) -> float | None:
        with self._lock:
            due = [retry.at for project, retry in self._retries.items() if project not in self._busy]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _employ(self) -> bool:
        """Give work to every project that has some and may begin; say whether there was one."""
        with self._master.database.read() as conn:
            waiting = deliveries.projects_waiting(conn)
        with self._lock:
            self._retries = {project: retry for project, retry in self._retries.items() if project in waiting}
            free = [project for project in waiting if project not in self._busy and self._is_due(project)]
            chosen = [] if self._stopping else free[: _PROJECTS_AT_ONCE - len(self._busy)]
            self._busy.update(chosen)
        for project in chosen:
            threading.Thread(target=self._work, args=(project,), name=f"intake-{project}", daemon=True).start()
        return bool(chosen)

    def _is_due(self, project: int) -> bool:
        retry = self._retries.get(project)
        return retry is None or time.monotonic() >= retry.at

    # --- the thread of one project ---

    def _work(self, project_id: int) -> None:
        try:
            while not self._stopping and (ids := self._next(project_id)) and self._try(project_id, ids):
                self._let_hooks_pass()
        except errors.KeepflowError as error:  # the store is closed, or cannot be read now
            log.warning("deliveries cannot be handled now", reason=error.message)
            self._put_off(project_id)
        finally:
            with self._idle:
                self._busy.discard(project_id)
                self._idle.notify_all()
            self._wake.set()

    def _next(self, project_id: int) -> list[int]:
        with self._master.database.read() as conn:
            refs = deliveries.refs_waiting(conn, project_id)[:_REFS]
            return [found for ref in refs for found in deliveries.unhandled_ids(conn, project_id, ref, _BATCH)]

    def _let_hooks_pass(self) -> None:
        """Wait until hooks have stopped coming in for a moment, but not for long: to accept them goes first."""
        deadline = time.monotonic() + _LONGEST_PAUSE
        while not self._stopping and (now := time.monotonic()) < deadline and now - self._heard < _LULL:
            time.sleep(_LULL)

    def _try(self, project_id: int, ids: Sequence[int]) -> bool:
        """Handle some of these deliveries, the oldest ones of a project; False when the project must wait."""
        try:
            stuck = handle(self._master, ids, clock.now())
        except errors.KeepflowError:  # it is the store that cannot take anything now
            raise
        except Exception as error:
            if len(ids) > 1:
                return all(self._try(project_id, [one]) for one in ids)
            log.exception("a delivery could not be handled", delivery=ids[0])
            self._failures[ids[0]] += 1
            if self._failures[ids[0]] < _TRIES:
                self._put_off(project_id)
                self._explain(ids[0], "waiting: keepflow failed and tries again", repr(error))
                return False
            self._give_up(ids[0])
            del self._failures[ids[0]]
        else:
            if stuck is not None:
                event = stuck.delivery.event
                self._explain(
                    stuck.delivery.id, f"waiting: cannot fetch {event.ref if event else ''}", stuck.error.message
                )
                self._put_off(project_id)
                return False
        with self._lock:
            self._retries.pop(project_id, None)
        return True

    def _explain(self, delivery_id: int, what: str, why: str) -> None:
        sentence = f"{one_line(what, 300)}: {one_line(why, 600)}"
        log.warning("a delivery waits", delivery=delivery_id, reason=sentence)
        self._master.writer.call(lambda tx: deliveries.explain_wait(tx.conn, delivery_id, sentence))

    def _give_up(self, delivery_id: int) -> None:
        decision = decided(
            "keepflow failed on this delivery, and its own log has the details: report it, then push again"
        )
        self._master.writer.call(lambda tx: deliveries.decide(tx.conn, delivery_id, decision, clock.now()))

    def _put_off(self, project_id: int) -> None:
        """Let a project wait, longer each time."""
        with self._lock:
            tries = self._retries[project_id].tries + 1 if project_id in self._retries else 1
            longest = min(_LONGEST_WAIT, _FIRST_WAIT * 2 ** (tries - 1))
            self._retries[project_id] = _Retry(tries, time.monotonic() + random.uniform(longest / 2, longest))  # noqa: S311 - spreads load, guards nothing


@dataclass(frozen=True, slots=True)
class _Retry:
    """When a project is tried again, in monotonic seconds, after how many tries in a row."""

    tries: int
    at: float
