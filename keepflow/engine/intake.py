"""Deliveries taken in and handled.

`record` stores a delivery and is all that a webhook waits for. `Intake` takes the stored ones from the table, per
project in the order they came; what the table says is all that counts, so a restart goes on where the last one stopped.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import structlog

from keepflow import errors
from keepflow.core.events import Parsed
from keepflow.core.text import one_line
from keepflow.engine import clock
from keepflow.engine.context import Master
from keepflow.engine.deciding import decided, handle
from keepflow.store import deliveries
from keepflow.store.deliveries import Delivery, NewDelivery
from keepflow.store.projects import Project
from keepflow.store.writer import Tx

log = structlog.get_logger(__name__)

#: Parts of header names that hold what proves the sender; such headers are not stored.
_UNSTORED = ("authorization", "cookie", "token", "signature", "secret")
_PROJECTS_AT_ONCE = 4
_FIRST_WAIT, _LONGEST_WAIT = 1.0, 60.0  #: seconds until a remote that did not answer is asked again
_PAUSE = 0.01  #: seconds between two looks: a storm of hooks must not become a storm of queries
_TRIES = 3  #: of a delivery on which keepflow itself fails


@dataclass(frozen=True, slots=True)
class Recorded:
    """A delivery that is stored; `first` is False for one that was stored before, then the rest is the first one's."""

    id: int
    first: bool
    handled: bool
    parsed: Parsed
    decision: dict[str, Any] | None


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
    decision = None if parsed.event else decided(parsed.sentence)
    kept = {name: value for name, value in headers.items() if not any(part in name.lower() for part in _UNSTORED)}
    new = NewDelivery(project.id, delivery_id[:200], forge, event_name[:60], kept, body, parsed, decision, now)
    row_id = deliveries.add(tx.conn, new)
    if row_id is None:
        return _known(tx, project, new.delivery)
    if parsed.event is not None:
        tx.after_commit(partial(master.wakes.fire, "deliveries"))
    return Recorded(row_id, True, parsed.event is None, parsed, decision)


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
        self._stopping = False
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._busy: set[int] = set()
        self._retries: dict[int, _Retry] = {}
        self._subscriptions: list[Callable[[], None]] = []
        self._thread = threading.Thread(target=self._run, name="intake", daemon=True)

    def start(self) -> None:
        """Begin with what an earlier process left unhandled."""
        wakes = self._master.wakes
        self._subscriptions = [wakes.subscribe("deliveries", self._wake.set), wakes.subscribe("projects", self._forget)]
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
            try:
                self._employ()
            except errors.KeepflowError as error:
                log.warning("deliveries cannot be read now", reason=error.message)
                self._wake.wait(_FIRST_WAIT)
            time.sleep(_PAUSE)

    def _patience(self) -> float | None:
        with self._lock:
            due = [retry.at for project, retry in self._retries.items() if project not in self._busy]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _employ(self) -> None:
        with self._master.database.read() as conn:
            waiting = deliveries.projects_waiting(conn)
        with self._lock:
            self._retries = {project: retry for project, retry in self._retries.items() if project in waiting}
            free = [project for project in waiting if project not in self._busy and self._is_due(project)]
            chosen = [] if self._stopping else free[: _PROJECTS_AT_ONCE - len(self._busy)]
            self._busy.update(chosen)
        for project in chosen:
            threading.Thread(target=self._work, args=(project,), name=f"intake-{project}", daemon=True).start()

    def _is_due(self, project: int) -> bool:
        retry = self._retries.get(project)
        return retry is None or time.monotonic() >= retry.at

    # --- the thread of one project ---

    def _work(self, project_id: int) -> None:
        try:
            while not self._stopping and (delivery := self._next(project_id)) is not None:
                if not self._try(project_id, delivery):
                    break
        except errors.KeepflowError as error:  # the store is closed, or cannot be read now
            log.warning("deliveries cannot be handled now", reason=error.message)
            self._put_off(project_id)
        finally:
            with self._idle:
                self._busy.discard(project_id)
                self._idle.notify_all()
            self._wake.set()

    def _next(self, project_id: int) -> Delivery | None:
        with self._master.database.read() as conn:
            return deliveries.next_unhandled(conn, project_id)

    def _try(self, project_id: int, delivery: Delivery) -> bool:
        """Handle one delivery; False when the project must wait."""
        try:
            handle(self._master, delivery.id, clock.now())
        except (errors.CommandFailed, errors.BadRemote, errors.ProgramMissing, errors.BadSeal) as error:
            self._explain(
                delivery, f"waiting: cannot fetch {delivery.event.ref if delivery.event else ''}", error.message
            )
            self._put_off(project_id)
            return False
        except errors.KeepflowError:
            raise
        except Exception as error:
            log.exception("a delivery could not be handled", delivery=delivery.id)
            if self._put_off(project_id) < _TRIES:
                self._explain(delivery, "waiting: keepflow failed and tries again", repr(error))
                return False
            self._give_up(delivery)
        with self._lock:
            self._retries.pop(project_id, None)
        return True

    def _explain(self, delivery: Delivery, what: str, why: str) -> None:
        sentence = f"{one_line(what, 300)}: {one_line(why, 600)}"
        log.warning("a delivery waits", delivery=delivery.id, reason=sentence)
        self._master.writer.call(lambda tx: deliveries.explain_wait(tx.conn, delivery.id, sentence))

    def _give_up(self, delivery: Delivery) -> None:
        decision = decided(
            "keepflow failed on this delivery, and its own log has the details: report it, then push again"
        )
        self._master.writer.call(lambda tx: deliveries.decide(tx.conn, delivery.id, decision, clock.now()))

    def _put_off(self, project_id: int) -> int:
        """Let a project wait, longer each time, and return how many times in a row it had to."""
        with self._lock:
            tries = self._retries[project_id].tries + 1 if project_id in self._retries else 1
            longest = min(_LONGEST_WAIT, _FIRST_WAIT * 2 ** (tries - 1))
            self._retries[project_id] = _Retry(tries, time.monotonic() + random.uniform(longest / 2, longest))  # noqa: S311 - spreads load, guards nothing
        return tries


@dataclass(frozen=True, slots=True)
class _Retry:
    """When a project is tried again, in monotonic seconds, after how many tries in a row."""

    tries: int
    at: float
