"""The engine as one thing that starts and stops, in the one right order."""

from __future__ import annotations

import time

from keepflow.engine import clock, enrol, restored
from keepflow.engine.context import Master
from keepflow.engine.hooking import HookKeeper
from keepflow.engine.intake import Intake
from keepflow.engine.notifying import Outbox
from keepflow.engine.schedule import Schedule
from keepflow.engine.statuses import StatusSender


class Engine:
    """Everything of the master that works by itself; the database is locked, checked and migrated by then."""

    def __init__(self, master: Master) -> None:
        self._master = master
        self._intake = Intake(master)
        self._schedule = Schedule(master)
        self._outbox = Outbox(master)
        self._statuses = StatusSender(master)
        self._hooks = HookKeeper(master)

    def start(self) -> None:
        """Take up the work where the last process left it; returns once everything takes work."""
        self._master.writer.start()
        self._master.logs.start()
        self._master.writer.call(enrol.all_disconnected)
        self._master.writer.call(lambda tx: restored.settle(tx, self._master, clock.now()))
        self._intake.start()
        self._schedule.start()
        self._outbox.start()
        self._statuses.start()
        self._hooks.start()

    def stop(self, timeout: float = 2.5) -> None:
        """Commit and sync what was taken, then stop, within about `timeout` seconds; nothing acknowledged is lost."""
        deadline = time.monotonic() + timeout
        self._schedule.stop()
        self._intake.stop(timeout / 3)
        self._outbox.stop(timeout / 6)
        self._statuses.stop(timeout / 12)
        self._hooks.stop(timeout / 12)
        self._master.logs.close(max(0.1, deadline - time.monotonic()))
        self._master.writer.close(max(0.1, deadline - time.monotonic()))
        self._master.database.dispose()
