"""The outbox: what happened becomes notices, after it was committed, and notices are sent until their channel has them.

A notice is written down with the place in the events up to which everything was told, so it is made once. It is sent,
then marked; a master that dies between the two sends it again, under the same delivery id. Nothing here changes a run.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import groupby

import structlog
from sqlalchemy import Connection

from keepflow import errors
from keepflow.core.notices import Notice, Word, next_try
from keepflow.core.states import Reason
from keepflow.core.text import one_line, quoted
from keepflow.engine import channels, clock, telling
from keepflow.engine.channels import SEEN, Listener
from keepflow.engine.context import Master
from keepflow.engine.woken import LONGEST_WAIT, Woken
from keepflow.store import events, jobs, notices, settings
from keepflow.store.events import StoredEvent
from keepflow.store.jobs import Job
from keepflow.store.notices import StoredNotice
from keepflow.store.runs import Run
from keepflow.store.writer import Tx
from keepflow.tools.failpoints import fail

log = structlog.get_logger(__name__)

KEPT = 30 * 24 * 3600 * 1_000_000  #: microseconds a notice is shown after it was sent
_EVENTS_AT_ONCE = 200
_FAR = 1000  #: events without a notice after which the place is written down
_CHANNELS_AT_ONCE = 4


def ask(tx: Tx, master: Master, run: Run, job: Job, now: int) -> Reason:
    """Tell whom a `notify:` job names, a channel or a mail address, how the run stands; return what became of it.

    The job has succeeded either way: whether anybody can be told changes no run. Code of strangers tells nobody.
    """
    address = str(job.spec["target"])
    if run.trust == "fork":
        return Reason("nobody", "a fork's flow file tells nobody")
    listener, _ = _meant(channels.listeners(tx.conn, master), address)
    if listener is None:
        return Reason("nobody", f"no channel in the server file reaches {quoted(address)}")
    states = {one.key: one.state.value for one in jobs.of_run(tx.conn, run.id) if one.id != job.id}
    data = {"address": one_line(address, 320), "job": job.key, "jobs": states}
    events.add(tx, now, "notify-asked", project_id=run.project_id, run_id=run.id, data=data)
    tx.after_commit(lambda: master.wakes.fire("events"))
    return Reason("told", f"{quoted(address)} is told on {listener.name}")


def collect(master: Master, listeners: Sequence[Listener], seen: int | None, now: int) -> tuple[int, bool]:
    """Make notices of what was committed after the event `seen` (None: after what was written down as seen).

    Returns the last event that was looked at, and whether there may be more.
    """
    with master.database.read() as conn:
        written: int = settings.get(conn, SEEN, 0)
        last = events.last_id(conn)
        found = events.of_kinds(conn, telling.KINDS, written if seen is None else seen, _EVENTS_AT_ONCE)
        made = [row for event in found for row in _rows(conn, master, listeners, event)]
    more = len(found) == _EVENTS_AT_ONCE
    upto = found[-1].id if more else last
    if made or upto - written >= _FAR:
        master.writer.call(lambda tx: _write(tx, made, upto, now))
    return upto, more


def send(master: Master, listener: Listener | None, waiting: StoredNotice, now: Callable[[], int]) -> None:
    """Send one notice and write down what became of it."""
    try:
        if listener is None:
            raise errors.Undeliverable(f"there is no channel {waiting.channel} any more", code="no-channel")
        listener.channel.send(waiting.notice, waiting.recipient)
    except Exception as error:
        final = isinstance(error, errors.Undeliverable)
        if not isinstance(error, errors.KeepflowError):
            log.exception("a channel failed", channel=waiting.channel)
        said, at = one_line(str(error) or type(error).__name__, 400), now()
        again = None if final else next_try(waiting.tries + 1, waiting.made_at, at)
        log.warning("a notice was not sent", channel=waiting.channel, delivery=waiting.delivery, reason=said)
        master.writer.call(lambda tx: notices.failed(tx.conn, waiting.id, said, again, at))
    else:
        fail("notice.sent")
        master.writer.call(lambda tx: notices.sent(tx.conn, waiting.id, now()))


def test(conn: Connection, master: Master, name: str, now: int) -> dict[str, str]:
    """Tell every recipient of a channel that it works; returns the problem of each, "" for none. Raises NotFound."""
    listener = next((one for one in channels.listeners(conn, master) if one.name == name), None)
    if listener is None:
        raise errors.NotFound(f"there is no channel {quoted(name)} in the server file", code="no-channel")
    return {recipient: _problem(listener, recipient, master.url(), now) for recipient in listener.channel.recipients}


def _problem(listener: Listener, recipient: str, url: str, now: int) -> str:
    title = f"channel {listener.name} works"
    line = f"It is told of: {', '.join(sorted(listener.on))}."
    try:
        notice = Notice(f"kf-test-{secrets.token_hex(8)}", "test", title, (line,), url, "test", now)
        listener.channel.send(notice, recipient)
    except errors.KeepflowError as error:
        return one_line(error.message, 400)
    return ""


def _rows(
    conn: Connection, master: Master, listeners: Sequence[Listener], event: StoredEvent
) -> list[tuple[StoredEvent, str, str, Notice]]:
    try:
        told = telling.told(conn, master, event)
    except Exception:  # what one event says must not keep all later ones back
        log.exception("an event could not be told", event=event.id, kind=event.kind)
        return []
    if told is None:
        return []
    if Word.FLOW in told.words:
        listener, recipients = _meant(listeners, event.data["address"])
        pairs = [(listener.name, recipient) for recipient in recipients] if listener else []
    else:
        hearing = [one for one in listeners if event.id > one.since and one.hears(told.words, told.project)]
        pairs = [(one.name, recipient) for one in hearing for recipient in one.channel.recipients]
    return [
        (event, name, recipient, replace(told.notice, delivery=f"kf-{event.id}-{secrets.token_hex(8)}"))
        for name, recipient in pairs
    ]


def _meant(listeners: Sequence[Listener], address: str) -> tuple[Listener | None, tuple[str, ...]]:
    """Return the channel a flow file means and whom it is to tell: one by its name, or one that reaches an address."""
    for listener in listeners:
        if listener.name == address:
            return listener, listener.channel.recipients
    for listener in listeners:
        if listener.channel.fits(address):
            return listener, (address,)
    return None, ()


def _write(tx: Tx, made: Sequence[tuple[StoredEvent, str, str, Notice]], upto: int, now: int) -> None:
    for event, channel, recipient, notice in made:
        notices.add(tx.conn, event.id, channel, recipient, notice, event.project_id, now)
    settings.put(tx.conn, SEEN, upto)


class Outbox:
    """Makes and sends notices in threads of its own, each channel by itself: a dead one keeps nobody waiting."""

    def __init__(self, master: Master) -> None:
        self._master = master
        self._stale = True  #: the channels must be read anew
        self._listeners: list[Listener] = []
        self._seen: int | None = None
        self._busy: set[str] = set()
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(_CHANNELS_AT_ONCE, "notices")
        self._woken = Woken("notices", master.wakes, self._turn, {"events": None, "projects": self._changed})

    def start(self) -> None:
        """Begin where the last process stopped."""
        self._woken.start()

    def stop(self, timeout: float) -> None:
        """Begin nothing more; what is being sent ends with the process, and is sent again by the next one."""
        self._woken.stop(timeout)
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _changed(self) -> None:
        self._stale = True

    def _turn(self) -> float:
        """Make what is new and send what is due; return how many seconds to wait for something to do."""
        if self._stale:
            self._stale = False
            with self._master.database.read() as conn:
                self._listeners = channels.listeners(conn, self._master)
        if self._listeners:
            more = True
            while more:
                self._seen, more = collect(self._master, self._listeners, self._seen, clock.now())
        with self._lock:
            busy = frozenset(self._busy)
        with self._master.database.read() as conn:
            waiting = notices.due(conn, clock.now(), busy)
            following = notices.next_due(conn, busy)
        for channel, rows in groupby(sorted(waiting, key=lambda one: (one.channel, one.id)), lambda one: one.channel):
            self._begin(channel, list(rows))
        return LONGEST_WAIT if waiting or following is None else (following - clock.now()) / 1e6

    def _begin(self, channel: str, rows: list[StoredNotice]) -> None:
        with self._lock:
            self._busy.add(channel)  # whoever is busy wakes us when it is done
        listener = next((one for one in self._listeners if one.name == channel), None)
        self._pool.submit(self._send, channel, listener, rows)

    def _send(self, channel: str, listener: Listener | None, rows: list[StoredNotice]) -> None:
        try:
            for row in rows:
                if self._woken.stopping:
                    return
                send(self._master, listener, row, clock.now)
        except Exception:
            log.exception("what became of a notice could not be written down", channel=channel)
        finally:
            with self._lock:
                self._busy.discard(channel)
            self._woken.wake()
