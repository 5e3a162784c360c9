"""Artifacts of jobs for agents: kept, listed and handed on, by a job token that dies with its attempt."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from urllib.parse import parse_qs

from sqlalchemy import Connection
from starlette.types import Receive, Scope, Send

from keepflow import errors
from keepflow.engine import artifacts, clock
from keepflow.engine.context import Master
from keepflow.gateway.answers import allow, header, send_json
from keepflow.gateway.git import attempt_of, bearer
from keepflow.gateway.limits import Disconnected, Room, declared_length
from keepflow.gateway.readers import Readers
from keepflow.store.artifacts import Artifact, NewArtifact
from keepflow.store.jobs import Attempt
from keepflow.store.writer import Tx

_BATCH = 1024 * 1024  #: bytes that go to the disk at once
_LONGEST = 366 * 86400.0  #: seconds


class Artifacts:
    """`PUT /artifacts/kept?path=…&sha256=…&keep=SECONDS`, `GET /artifacts/needed`, `GET /artifacts/needed/{id}`."""

    def __init__(self, master: Master, readers: Readers, room: Room) -> None:
        self._master, self._readers, self._room = master, readers, room

    async def keep(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take one file of a job that runs now."""
        allow(scope, "PUT")
        attempt = await self._attempt(scope)
        declared_length(scope, artifacts.LARGEST)
        asked = _asked(scope)
        artifacts.place_of(self._master.home, asked.sha256)  # raises for what is no digest, before a byte is taken
        await self._readers.query(partial(artifacts.check_room, attempt=attempt, path=asked.path))
        with self._room.place(scope), artifacts.Incoming(self._master.home) as file:
            async for piece in pieces(receive):
                await asyncio.to_thread(file.write, piece)
            await asyncio.to_thread(file.finish, asked.sha256)
            whole, now = replace(asked, size=file.size), clock.now()

            def record(tx: Tx) -> int:
                return artifacts.record(tx, attempt, whole, now)

            number = await asyncio.wrap_future(self._master.writer.submit(record))
        await send_json(send, 201, {"id": number, "size": whole.size})

    async def needed(self, scope: Scope, _receive: Receive, send: Send) -> None:
        """List what the jobs before this one have kept."""
        allow(scope, "GET")
        found = await self._handed_on(scope)
        listed = [
            {"id": one.id, "path": one.path, "size": one.size, "sha256": one.sha256, "executable": one.executable}
            for one in found
        ]
        await send_json(send, 200, {"items": listed})

    async def fetch(self, scope: Scope, _receive: Receive, send: Send) -> None:
        """Hand one of these files on."""
        allow(scope, "GET")
        number = int(scope["path_params"]["id"])
        one = next((found for found in await self._handed_on(scope) if found.id == number), None)
        if one is None:
            raise errors.NotFound("there is no such artifact for this job", code="no-artifact")
        await send_file(send, artifacts.place_of(self._master.home, one.sha256), one.size)

    async def _handed_on(self, scope: Scope) -> list[Artifact]:
        attempt = await self._attempt(scope)
        return await self._readers.query(partial(artifacts.handed_on, attempt=attempt))

    async def _attempt(self, scope: Scope) -> Attempt:
        token = bearer(header(scope, b"authorization"))

        def find(conn: Connection) -> Attempt:
            return attempt_of(conn, token)

        return await self._readers.query(find)


def _asked(scope: Scope) -> NewArtifact:
    """Read what an agent says of a file; its size is for us to count."""
    query = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    path, digest, keep = (query.get(name, [""])[0] for name in ("path", "sha256", "keep"))
    try:
        seconds = float(keep or 0)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= _LONGEST:
        raise errors.UsageError("keep is a number of seconds, a year at most", code="bad-duration")
    expires_at = clock.now() + int(seconds * 1_000_000) if seconds else None
    return NewArtifact(path, 0, digest, query.get("executable") == ["1"], expires_at)


async def pieces(receive: Receive) -> AsyncIterator[bytes]:
    """Yield a body in pieces worth a visit to the disk."""
    waiting, more = bytearray(), True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            raise Disconnected("the client went away")
        more = message.get("more_body", False)
        waiting += message.get("body", b"")
        if waiting and (len(waiting) >= _BATCH or not more):
            yield bytes(waiting)
            waiting.clear()


async def send_file(send: Send, path: Path, size: int) -> None:
    """Answer with a whole file of the store; raises NotFound when its bytes are gone."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        raise errors.NotFound("the bytes of this artifact are gone", code="no-artifact") from None
    try:
        lines = [(b"content-type", b"application/octet-stream"), (b"content-length", b"%d" % size)]
        await send({"type": "http.response.start", "status": 200, "headers": lines})
        at = 0
        while data := await asyncio.to_thread(os.pread, file, _BATCH, at):
            at += len(data)
            await send({"type": "http.response.body", "body": data, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
    finally:
        os.close(file)
