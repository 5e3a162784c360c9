"""Server-sent events: one stream to one reader, with heartbeats, until either side has had enough."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from pydantic_core import to_json
from starlette.types import Receive, Send

from keepflow import errors
from keepflow.gateway.bell import Bell, Closing

#: Proxies cut a silent stream; a comment at least this often, in seconds, keeps it.
HEARTBEAT = 15.0
#: A reader that takes nothing for this long has gone, whatever its connection says.
STALL = 60.0
#: How often a stream that stays open asks again whether its reader still may.
RECHECK = 60.0
MOST_STREAMS = 4096
_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
]


class Sse:
    """One open stream. `bell` wakes it; whoever writes the stream subscribes the bell to what it shows."""

    def __init__(self, send: Send, bell: Bell, closing: Closing, allowed: Callable[[], Awaitable[bool]]) -> None:
        self.bell = bell
        self._send, self._closing, self._allowed = send, closing, allowed
        self._gone = False
        self._checked_at = time.monotonic()

    async def event(self, name: str, data: dict[str, Any], event_id: str | None = None) -> None:
        """Send one event; returns when the reader's connection has room again."""
        number = f"id: {event_id}\n" if event_id is not None else ""
        head = f"{number}event: {name}\ndata: ".encode()
        await self._write(b"".join((head, to_json(data), b"\n\n")))  # twice as fast as json, and most of a long log

    async def wait(self) -> bool:
        """Wait until there may be something new to send; False when this stream is over."""
        while not self.over:
            if await self.bell.wait(HEARTBEAT):
                return not self.over and await self._still_allowed()
            await self._write(b": beat\n\n")
            if not await self._still_allowed():
                return False
        return False

    async def finish(self) -> None:
        """End the stream; when the server is what ends it, the reader is told to come back."""
        if self._closing.begun:
            await self.event("bye", {"sentence": "the server restarts"})
            await self._write(b"retry: 500\n\n")
        await self._send({"type": "http.response.body", "body": b""})

    def leave(self) -> None:
        """Say that the reader has gone."""
        self._gone = True
        self.bell.ring()

    @property
    def over(self) -> bool:
        """Whether nothing more is to be sent: the reader has gone, or the server closes."""
        return self._gone or self._closing.begun

    async def _still_allowed(self) -> bool:
        if time.monotonic() - self._checked_at < RECHECK:
            return True
        self._checked_at = time.monotonic()
        return await self._allowed()

    async def _write(self, data: bytes) -> None:
        try:
            async with asyncio.timeout(STALL):
                await self._send({"type": "http.response.body", "body": data, "more_body": True})
        except TimeoutError:
            self.leave()


@asynccontextmanager
async def opened(
    receive: Receive, send: Send, closing: Closing, allowed: Callable[[], Awaitable[bool]]
) -> AsyncIterator[Sse]:
    """Begin a stream and end it with the block; raises Unavailable when there are too many."""
    if closing.begun or closing.open >= MOST_STREAMS:
        raise errors.Unavailable("no more streams are possible now; try again soon", code="busy")
    bell = Bell()
    with closing.heard_by(bell):
        stream = Sse(send, bell, closing, allowed)
        watch = asyncio.create_task(_watch(receive, stream))
        try:
            await send({"type": "http.response.start", "status": 200, "headers": list(_HEADERS)})
            yield stream
            await stream.finish()
        finally:
            watch.cancel()


async def _watch(receive: Receive, stream: Sse) -> None:
    while (await receive())["type"] != "http.disconnect":
        continue
    stream.leave()
