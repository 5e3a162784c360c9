"""What the master does by the clock: compare remotes, notice silence, renew sentences, forget what is too old."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import structlog

from keepflow import errors
from keepflow.engine import (
    approvals,
    artifacts,
    clock,
    commands,
    deploying,
    dispatch,
    enrol,
    expiring,
    gates,
    leaving,
    lfs,
    notifying,
    people,
    reconcile,
    retention,
    retrying,
    workspaces,
)
from keepflow.engine.context import Master
from keepflow.engine.timetable import Timetable
from keepflow.store import notices, projects
from keepflow.store.writer import Tx

if TYPE_CHECKING:
    from apscheduler.schedulers.background import BackgroundScheduler

log = structlog.get_logger(__name__)

_SECOND = 1_000_000
SILENT_AFTER = 60 * _SECOND  #: microseconds after which a silent agent is said to be silent
LOST_AFTER = 600 * _SECOND  #: microseconds after which its script jobs are given up


class Schedule:
    """Runs the master's regular work, each kind in a thread of its own that never runs twice at once."""

    def __init__(self, master: Master, *, sweep_seconds: float = 300.0) -> None:
        self._master = master
        self._busy: dict[str, threading.Thread] = {}
        self._sweep_seconds = sweep_seconds
        self._timetable = Timetable(master)
        self._scheduler: BackgroundScheduler | None = None
        self._subscriptions: list[Callable[[], None]] = []

    def start(self) -> None:
        """Begin, with a comparison of all remotes at once."""
        from apscheduler.schedulers.background import BackgroundScheduler

        self._scheduler = BackgroundScheduler(timezone=UTC)
        self._every(self._sweep_seconds, "compare remotes", lambda: reconcile.sweep(self._master), at_once=True)
        self._every(60, "let questions of flows lapse", lambda: approvals.sweep(self._master, clock.now()))
        self._every(1, "end what takes too long", lambda: expiring.sweep(self._master, clock.now()))
        self._every(1, "begin further tries", lambda: retrying.sweep(self._master, clock.now()))
        self._every(5, "start by the clock", self._timetable.tick, at_once=True)
        self._every(10, "notice silence", self._notice_silence)
        self._every(30, "renew what waits", self._renew)
        self._every(3600, "forget sessions", self._forget)
        self._every(60, "remove idle instances", lambda: leaving.sweep(self._master, clock.now()))
        self._every(600, "let go of artifacts", lambda: artifacts.sweep(self._master, clock.now()))
        self._every(60, "let go of workspaces", self._let_workspaces_go, at_once=True)
        self._every(3600, "let go of logs", self._let_go)
        self._every(24 * 3600, "tidy mirrors", self._tidy)
        self._scheduler.start()
        wakes = self._master.wakes
        self._subscriptions = [
            wakes.subscribe("projects", lambda: self._begin("compare remotes", lambda: reconcile.sweep(self._master))),
            wakes.subscribe("workspaces", lambda: self._begin("let go of workspaces", self._let_workspaces_go)),
            wakes.subscribe("dispatch", lambda: self._begin("renew what waits", self._renew)),
        ]

    def stop(self) -> None:
        """Begin nothing more; what is under way ends with the process."""
        for unsubscribe in self._subscriptions:
            unsubscribe()
        if self._scheduler is not None:
            self._scheduler.shutdown(wait=False)

    def _every(self, seconds: float, name: str, work: Callable[[], None], *, at_once: bool = False) -> None:
        if self._scheduler is None:
            raise RuntimeError("the schedule has not begun")
        first = datetime.now(UTC) + (timedelta() if at_once else timedelta(seconds=seconds))
        self._scheduler.add_job(
            self._begin,
            "interval",
            args=(name, work),
            seconds=seconds,
            next_run_time=first,
            coalesce=True,
            misfire_grace_time=None,
        )

    def _begin(self, name: str, work: Callable[[], None]) -> None:
        """Start a thread that does not keep the process alive: git may take a minute to give up."""
        before = self._busy.get(name)
        if before is None or not before.is_alive():
            self._busy[name] = threading.Thread(target=self._do, args=(name, work), name=name, daemon=True)
            self._busy[name].start()

    def _do(self, name: str, work: Callable[[], None]) -> None:
        try:
            work()
        except errors.KeepflowError as error:
            log.warning("regular work was not done", work=name, reason=error.message)
        except Exception:
            log.exception("regular work failed", work=name)

    def _notice_silence(self) -> None:
        self._write(lambda tx: enrol.silent(tx, self._master, clock.now(), SILENT_AFTER, LOST_AFTER))

    def _renew(self) -> None:
        def renew(tx: Tx) -> None:
            now = clock.now()
            gates.lapse(tx, now)
            commands.lapse_approvals(tx, self._master, now)
            deploying.offer_waiting(tx, self._master, now)
            dispatch.assign(tx, self._master, now)

        self._write(renew)

    def _let_go(self) -> None:
        lfs.sweep(self._master, clock.now() / _SECOND)
        retention.sweep(self._master, clock.now())

    def _let_workspaces_go(self) -> None:
        workspaces.sweep(self._master)

    def _forget(self) -> None:
        def forget(tx: Tx) -> None:
            people.sweep(tx, clock.now())
            notices.sweep(tx.conn, clock.now() - notifying.KEPT)

        self._write(forget)

    def _tidy(self) -> None:
        with self._master.database.read() as conn:
            found = projects.every(conn)
        for project in found:
            self._master.mirrors.tidy(project)

    def _write(self, work: Callable[[Tx], None]) -> None:
        self._master.writer.call(work)
