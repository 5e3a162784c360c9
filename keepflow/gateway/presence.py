"""Heartbeats on their way to the database: many agents in one closure, and only what is news."""

from __future__ import annotations

import asyncio
from functools import partial

import structlog

from keepflow import errors
from keepflow.engine import clock, enrol
from keepflow.engine.context import Master
from keepflow.store.writer import Tx
from keepflow.wire.messages import Heartbeat

log = structlog.get_logger(__name__)

#: Seconds that heartbeats gather.
_GATHER = 0.5
#: An agent with nothing new to say is still written down this often, in microseconds.
_REFRESH = 20_000_000


class Presence:
    """Takes every heartbeat and writes down those that say something new, or that are due."""

    def __init__(self, master: Master) -> None:
        self._master = master
        self._waiting: dict[int, tuple[Heartbeat, int]] = {}
        self._written: dict[int, tuple[Heartbeat, int]] = {}
        self._task: asyncio.Task[None] | None = None

    def heard(self, agent_id: int, beat: Heartbeat) -> None:
        """Take one heartbeat."""
        now = clock.now()
        before = self._written.get(agent_id)
        if before is not None and now - before[1] < _REFRESH and _same(beat, before[0]):
            return
        self._waiting[agent_id] = self._written[agent_id] = (beat, now)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._write())

    def forget(self, agent_id: int) -> None:
        """Let the next session of an agent begin afresh."""
        self._waiting.pop(agent_id, None)
        self._written.pop(agent_id, None)

    async def _write(self) -> None:
        while self._waiting:
            await asyncio.sleep(_GATHER)
            beats, self._waiting = self._waiting, {}
            try:
                await asyncio.wrap_future(self._master.writer.submit(partial(self._store, beats=beats)))
            except errors.Unavailable as error:
                for agent_id in beats:
                    self._written.pop(agent_id, None)
                log.warning("heartbeats were not written down", code=error.code)

    def _store(self, tx: Tx, beats: dict[int, tuple[Heartbeat, int]]) -> None:
        for agent_id, (beat, now) in beats.items():
            enrol.heartbeat(tx, master=self._master, agent_id=agent_id, beat=beat, now=now)


def _same(one: Heartbeat, other: Heartbeat) -> bool:
    return one.running == other.running and one.services == other.services
