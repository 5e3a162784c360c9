"""One agent's session: what must go down is sent in order until it is received, what comes up is taken in order.

Nothing here grows without bound: acknowledgements are numbers, not queues; rows stay in the table until their turn; and
when reports or log bytes come faster than the disk takes them, the socket is not read.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial

import structlog
from pydantic import ValidationError
from sqlalchemy import Connection
from starlette.types import Message, Receive, Send

from keepflow import errors
from keepflow.engine import clock, reports, sending
from keepflow.engine.context import Master
from keepflow.gateway.bell import Bell, Closing
from keepflow.gateway.presence import Presence
from keepflow.gateway.readers import Readers
from keepflow.store import agents, events
from keepflow.store.agents import Agent
from keepflow.store.writer import Tx
from keepflow.wire import messages

log = structlog.get_logger(__name__)

#: Heartbeats without a word from the agent after which the link is dead, and a little for the road.
_SILENCE = 2 * messages.HEARTBEAT_SECONDS + 2.0
_HIGHEST = 2**63 - 1  #: number the database can hold
_ROWS = 32  #: rows of `outgoing` read at once
_REPORTS = 256  #: reports taken in one closure, and as many waiting behind them
_LOG_BYTES = 8 * 1024 * 1024  #: log bytes of one agent that may wait for the disk
_ALL_LOG_BYTES = 64 * 1024 * 1024  #: log bytes of all agents that wait, above which each may add one frame at a time
_BROKE = "the link to it broke"
_RETRY = 5.0  #: seconds after which an agent comes back when something went wrong here


class _Ended(Exception):
    """This session is over; the text says why."""


@dataclass(slots=True)
class Pressure:
    """How many log bytes of all sessions together wait for the disk."""

    total: int = 0


class Session:
    """One live link. Made in the event loop, run once."""

    def __init__(
        self,
        master: Master,
        readers: Readers,
        closing: Closing,
        presence: Presence,
        pressure: Pressure,
        *,
        agent: Agent,
        send: Send,
    ) -> None:
        self.agent = agent
        self._master, self._readers, self._closing, self._presence = master, readers, closing, presence
        self._pressure, self._send = pressure, send
        self._loop = asyncio.get_running_loop()
        self._bell = Bell()
        self._heard_at = time.monotonic()
        self._gone = asyncio.Event()
        # What the speaking half has to say next.
        self._beat_due = False
        self._rows_waiting = True
        self._last_row = 0
        self._reported = 0
        self._log_acks: dict[int, int] = {}
        # What came up and is on its way to the disk.
        self._reports: asyncio.Queue[messages.Report] = asyncio.Queue(_REPORTS)
        self._log_pending = 0
        self._log_room = asyncio.Event()
        self._log_error: BaseException | None = None
        self._strange: set[int] = set()

    async def say(self, message: messages.Message) -> None:
        """Send one message."""
        await self._send({"type": "websocket.send", "text": message.model_dump_json()})

    async def run(self, receive: Receive) -> str:
        """Serve the session until it ends, and return why it did."""
        unsubscribe = self._master.wakes.subscribe(f"agent:{self.agent.id}", self._rows_came)
        tasks = [asyncio.create_task(half) for half in (self._listen(receive), self._speak(), self._take_reports())]
        try:
            with self._closing.heard_by(self._bell):
                ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                return await self._part(ended.pop().exception())
        finally:
            unsubscribe()
            self._gone.set()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def shows_life(self, within: float, last_words: float) -> bool:
        """Say whether the agent says something new in time and is still there `last_words` seconds later.

        Asks for it: an agent's machine answers a packet of a link it has forgotten with a reset.
        """
        asked_at, deadline = time.monotonic(), time.monotonic() + within
        self._beat_due = True
        self._bell.ring()
        while time.monotonic() < deadline and not self._gone.is_set():
            if self._heard_at > asked_at:
                await self._until_gone(last_words)
                return not self._gone.is_set()
            await self._until_gone(0.1)
        return False

    async def _until_gone(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._gone.wait()

    async def _part(self, error: BaseException | None) -> str:
        """Say farewell as far as anybody still listens, and return why."""
        if isinstance(error, _Ended):
            return str(error)
        if isinstance(error, OSError):
            return _BROKE
        if error is not None and not isinstance(error, errors.KeepflowError):
            log.error("a session broke off", agent=self.agent.name, exc_info=error)
        sentence = error.message if isinstance(error, errors.KeepflowError) else "something went wrong on the master"
        last: messages.Message = messages.Farewell(sentence=sentence, retry=_RETRY)
        if isinstance(error, errors.Denied):
            last = messages.Refused(code=error.code, sentence=sentence)
        with contextlib.suppress(OSError):  # the link may be gone already
            await self._close(last)
        return sentence

    async def _close(self, last: messages.Message) -> None:
        await self.say(last)
        await self._send({"type": "websocket.close", "code": 1000})

    # --- up ---

    async def _listen(self, receive: Receive) -> None:
        while True:
            message = await receive()
            if message["type"] != "websocket.receive":
                raise _Ended(_BROKE)
            self._heard_at = time.monotonic()
            frame = message.get("bytes")
            if frame is not None:
                await self._hear_log(frame)
            elif (told := _read(message)) is not None:
                await self._hear(told)

    async def _hear(self, message: messages.FromAgent) -> None:
        match message:
            case messages.Heartbeat():
                self._presence.heard(self.agent.id, message)
                self._beat_due = True
                self._bell.ring()
            case messages.Report(body=body):
                if isinstance(body, messages.DeployFinished | messages.HostRollback):
                    self._presence.overtaken(self.agent.id)
                await self._reports.put(message)
            case messages.Received(ids=ids):
                work = partial(sending.received, agent_id=self.agent.id, ids=ids, now=clock.now())
                await asyncio.wrap_future(self._master.writer.submit(work))
            case messages.Farewell(sentence=sentence):
                await self._reports.join()
                raise _Ended(f"it said farewell: {sentence}" if sentence else "it said farewell")
            case _:
                raise errors.UsageError("an agent says hello once", code="bad-message")

    async def _hear_log(self, frame: bytes) -> None:
        size = len(frame) - messages.LOG_HEADER.size
        if not 0 <= size <= messages.LOG_FRAME_LIMIT:
            raise errors.UsageError("a log frame of a wrong length", code="bad-message")
        fence, offset = messages.LOG_HEADER.unpack_from(frame)
        if max(fence, offset) > _HIGHEST:
            raise errors.UsageError("a log frame with numbers nobody gave out", code="bad-message")
        if max(fence, offset) >= 2**63:
            raise errors.UsageError("a log frame with a number that none has", code="bad-message")
        self._log_pending += size
        self._pressure.total += size
        data = frame[messages.LOG_HEADER.size :]
        future = self._master.logs.append(fence, offset, data, agent_id=self.agent.id)
        future.add_done_callback(partial(self._log_stored, fence, size))
        while self._log_pending > (_LOG_BYTES if self._pressure.total <= _ALL_LOG_BYTES else 0):
            self._log_room.clear()
            await self._log_room.wait()

    def _log_stored(self, fence: int, size: int, future: Future[int]) -> None:
        """Hand the outcome to the event loop; called in the log thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: the process ends
            self._loop.call_soon_threadsafe(self._log_settled, fence, size, future)

    def _log_settled(self, fence: int, size: int, future: Future[int]) -> None:
        self._log_pending -= size
        self._pressure.total -= size
        self._log_room.set()
        error = future.exception()
        if error is None:
            self._log_acks[fence] = future.result()
        elif isinstance(error, errors.NotFound):
            self._note_stranger(fence)
        else:
            self._log_error = error
        self._bell.ring()

    def _note_stranger(self, fence: int) -> None:
        """Write down, once, that an agent sent a log that is not its own; nothing of it was stored."""
        if fence in self._strange or len(self._strange) >= _ROWS:
            return
        self._strange.add(fence)
        work = partial(_note, agent_id=self.agent.id, fence=fence, now=clock.now())
        with contextlib.suppress(errors.Unavailable):
            self._master.writer.submit(work)

    async def _take_reports(self) -> None:
        """Take reports in their order, as many at once as are there; acknowledged is what is committed."""
        while True:
            batch = [await self._reports.get()]
            while len(batch) < _REPORTS and not self._reports.empty():
                batch.append(self._reports.get_nowait())
            await asyncio.wrap_future(self._master.writer.submit(partial(self._take, batch=batch)))
            self._reported = batch[-1].number
            self._bell.ring()
            for _ in batch:
                self._reports.task_done()

    def _take(self, tx: Tx, batch: list[messages.Report]) -> None:
        reports.take(tx, self._master, self.agent.id, batch, clock.now())

    # --- down ---

    def _rows_came(self) -> None:
        self._rows_waiting = True
        self._bell.ring()

    async def _speak(self) -> None:
        told = 0
        while True:
            if self._closing.begun:
                await self._close(messages.Farewell(sentence="the master stops"))
                raise _Ended("the master stopped")
            if self._log_error is not None:
                raise self._log_error
            silent = time.monotonic() - self._heard_at
            if silent >= _SILENCE:
                await self._send({"type": "websocket.close", "code": 1001})
                raise _Ended(f"nothing was heard of it for {silent:.0f} s")
            if self._beat_due:
                self._beat_due = False
                await self.say(messages.Beat(master_time=clock.now()))
            if self._reported > told:
                told = self._reported
                await self.say(messages.Reported(number=told))
            while self._log_acks:
                fence, offset = self._log_acks.popitem()
                await self.say(messages.LogAck(fence=fence, offset=offset))
            if not await self._send_rows():
                await self._bell.wait(_SILENCE - silent)

    async def _send_rows(self) -> bool:
        """Send what waits for this agent, in order; True when there may be more."""
        if not self._rows_waiting:
            return False
        self._rows_waiting = False
        rows = await self._readers.query(self._next_rows)
        for row in rows:
            await self.say(row)
            self._last_row = row.id
        self._rows_waiting = self._rows_waiting or len(rows) == _ROWS
        return self._rows_waiting

    def _next_rows(self, conn: Connection) -> list[messages.Send]:
        """Read what comes next; raises Denied when this key is no longer the agent's, or was revoked."""
        agent = agents.by_id(conn, self.agent.id)
        if agent.revoked_at is not None:
            raise errors.Denied(f"agent {agent.name} may not connect: {agent.offline_why}", code="revoked")
        if agent.key_id != self.agent.key_id:
            raise errors.Denied(f"another machine joined as agent {agent.name}", code="replaced")
        return sending.waiting(conn, self._master, agent.id, self._last_row, _ROWS)


def _read(message: Message) -> messages.FromAgent | None:
    """Return a message, or None for one of a kind that only a newer agent knows; raises UsageError."""
    try:
        return messages.from_agent.validate_json(message.get("text") or "")
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        if first["type"] == "union_tag_invalid" and not first["loc"]:
            return None
        raise errors.UsageError("a message that this master cannot read", code="bad-message") from None


def _note(tx: Tx, agent_id: int, fence: int, now: int) -> None:
    events.add(tx, now, "stale-report", agent_id=agent_id, data={"fence": fence, "type": "log"})
