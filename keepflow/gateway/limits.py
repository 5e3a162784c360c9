"""What one request may take of the server: bytes, seconds, places; and which paths are taken at all."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from keepflow import errors
from keepflow.gateway.answers import header

MIB = 1024 * 1024
#: How much of a refused body is still read, and how long, so that its sender comes to read the answer.
_LINGER_BYTES, _LINGER_SECONDS = 4 * MIB, 2.0
_BUFFERED = 64 * 1024  #: unread bodies up to this are dropped by the server, and the connection goes on
#: Segments that mean different things to different programs, and bytes no address of ours has.
_ODD_PATH = re.compile(r"^(?!/)|//|(?:^|/)\.{1,2}(?:/|$)|[\\;\x00-\x1f\x7f]")


class Disconnected(errors.UsageError):
    """The sender went away before the end of its request."""

    default_code = "disconnected"


class Room:
    """Memory for request bodies of one kind, and places for senders that do not send all at once."""

    def __init__(self, total: int, senders: int, per_address: int) -> None:
        self._free = total
        self._places = senders
        self._per_address = per_address
        self._senders: Counter[str] = Counter()

    @contextmanager
    def place(self, scope: Scope) -> Iterator[None]:
        """Hold one of the places while a body comes in piece by piece; raises Unavailable."""
        address = (scope.get("client") or ("",))[0]
        if self._places <= 0 or self._senders[address] >= self._per_address:
            raise errors.Unavailable("too many requests are being sent at once; try again soon", code="busy")
        self._places -= 1
        self._senders[address] += 1
        try:
            yield
        finally:
            self._places += 1
            self._senders[address] -= 1
            if not self._senders[address]:
                del self._senders[address]

    def take(self, size: int) -> None:
        """Take `size` bytes of memory; raises Unavailable when they are not free."""
        if size > self._free:
            raise errors.Unavailable("too much is being sent at once; try again soon", code="busy")
        self._free -= size

    def give(self, size: int) -> None:
        """Give bytes back."""
        self._free += size


def declared_length(scope: Scope, limit: int) -> None:
    """Refuse by the declared length, before a byte of the body is read; raises TooLarge and UsageError."""
    text = header(scope, b"content-length")
    if text is None:
        return
    if not text.isdigit():
        raise errors.UsageError("the Content-Length is no number", code="bad-length")
    if len(text) > 12 or int(text) > limit:
        raise _too_large(limit)


class Body:
    """The body of one request, read whole: `async with Body(…) as data`. Its memory is given back at the end.

    Raises TooLarge, Disconnected and Unavailable; none of them is raised after more than `limit` bytes were kept.
    `gateway.idlers` ends senders that take too long.
    """

    def __init__(self, scope: Scope, receive: Receive, room: Room, limit: int) -> None:
        self._scope, self._receive, self._room = scope, receive, room
        self._limit = limit
        self._taken = 0

    async def __aenter__(self) -> bytes:
        try:
            message = await self._receive()
            piece = self._keep(message)
            return piece if not message.get("more_body", False) else await self._rest(piece)
        except BaseException:
            self._room.give(self._taken)
            raise

    async def __aexit__(self, *_: object) -> None:
        self._room.give(self._taken)

    async def _rest(self, first: bytes) -> bytes:
        pieces, more = bytearray(first), True
        with self._room.place(self._scope):
            while more:
                message = await self._receive()
                pieces += self._keep(message)
                more = message.get("more_body", False)
        return bytes(pieces)

    def _keep(self, message: Message) -> bytes:
        if message["type"] != "http.request":
            raise Disconnected("the sender went away")
        piece: bytes = message.get("body", b"")
        if self._taken + len(piece) > self._limit:
            raise _too_large(self._limit)
        self._room.take(len(piece))
        self._taken += len(piece)
        return piece


class Lingering:
    """Middleware: after an error in the middle of a body, read on for a moment, then close.

    A sender that is closed on in the middle of its body gets a reset and never reads why.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD") or not _is_still_coming(scope):
            await self._app(scope, receive, send)
            return
        unread = True
        refused = False

        async def received() -> Message:
            nonlocal unread
            message = await receive()
            unread = message["type"] == "http.request" and message.get("more_body", False)
            return message

        async def sent(message: Message) -> None:
            nonlocal refused
            if message["type"] == "http.response.start":
                refused = unread and message["status"] >= 400
                if refused:
                    message["headers"] = (*message["headers"], (b"connection", b"close"))
            elif refused and not message.get("more_body", False):
                await send({**message, "more_body": True})
                await _read_on(received)
                message = {"type": "http.response.body", "body": b""}
            await send(message)

        await self._app(scope, received, sent)


async def _read_on(receive: Receive) -> None:
    left = _LINGER_BYTES
    try:
        async with asyncio.timeout(_LINGER_SECONDS):
            while left > 0:
                message = await receive()
                left -= len(message.get("body", b""))
                if message["type"] != "http.request" or not message.get("more_body", False):
                    return
    except TimeoutError:
        return


def _is_still_coming(scope: Scope) -> bool:
    """Say whether a body nobody has read is more than what the server has taken from the socket already."""
    length = header(scope, b"content-length")
    if length is None:
        return header(scope, b"transfer-encoding") is not None
    return not length.isdigit() or len(length) > 12 or int(length) > _BUFFERED


def _has_body(scope: Scope) -> bool:
    return any(name in (b"content-length", b"transfer-encoding") for name, _ in scope["headers"])


class WholeBody:
    """Middleware: hand a request on only when its body is here, so that a slow sender holds no thread."""

    def __init__(self, app: ASGIApp, room: Room, limit: int) -> None:
        self._app, self._room, self._limit = app, room, limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http" or not _has_body(scope):
            await self._app(scope, receive, send)
            return
        declared_length(scope, self._limit)
        async with Body(scope, receive, self._room, self._limit) as data:
            whole = [data]

            async def received() -> Message:
                if whole:
                    return {"type": "http.request", "body": whole.pop()}
                return await receive()

            await self._app(scope, received, send)


def check_path(path: str) -> None:
    """Refuse paths that programs in front of this one may read differently; raises NotFound."""
    if _ODD_PATH.search(path):
        raise errors.NotFound("there is nothing at this address")


def _too_large(limit: int) -> errors.TooLarge:
    return errors.TooLarge(f"the body is larger than the limit of {limit // MIB or 1} MiB")
