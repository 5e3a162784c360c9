"""Heartbeats on their way to the database: many agents in one closure, whole only those that say something new."""

from __future__ import annotations

import asyncio
from functools import partial

import structlog

from keepflow import errors
from keepflow.engine import clock, enrol
from keepflow.engine.context import Master
from keepflow.store import agents
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
        self._news: dict[int, Heartbeat] = {}
        self._seen: set[int] = set()
        self._written: dict[int, tuple[Heartbeat, int]] = {}
        self._task: asyncio.Task[None] | None = None

    def heard(self, agent_id: int, beat: Heartbeat) -> None:
        """Take one heartbeat."""
        now = clock.now()
        before = self._written.get(agent_id)
        if before is None or not _same(beat, before[0]):
            self._news[agent_id] = beat
        elif now - before[1] >= _REFRESH:
            self._seen.add(agent_id)
        else:
            return
        self._written[agent_id] = (beat, now)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._write())

    def overtaken(self, agent_id: int) -> None:
        """Take what an agent said of its services so far for old: it has told the end of a deployment since.

        That is written down at once, and must not be followed by what was gathered before it.
        """
        if (beat := self._news.get(agent_id)) is not None:
            self._news[agent_id] = beat.model_copy(update={"services": ()})
        self._written.pop(agent_id, None)

    def forget(self, agent_id: int) -> None:
        """Let the next session of an agent begin afresh."""
        self._news.pop(agent_id, None)
        self._seen.discard(agent_id)
        self._written.pop(agent_id, None)

    async def _write(self) -> None:
        while self._news or self._seen:
            await asyncio.sleep(_GATHER)
            news, self._news = self._news, {}
            seen, self._seen = self._seen, set()
            work = partial(self._store, news=news, seen=sorted(seen), now=clock.now())
            try:
                await asyncio.wrap_future(self._master.writer.submit(work))
            except errors.Unavailable as error:
                for agent_id in (*news, *seen):
                    self._written.pop(agent_id, None)
                log.warning("heartbeats were not written down", code=error.code)

    def _store(self, tx: Tx, news: dict[int, Heartbeat], seen: list[int], now: int) -> None:
        if seen:
            agents.seen(tx.conn, seen, now)
        for agent_id, beat in news.items():
            enrol.heartbeat(tx, master=self._master, agent_id=agent_id, beat=beat, now=now)


def _same(one: Heartbeat, other: Heartbeat) -> bool:
    return one.running == other.running and one.services == other.services
