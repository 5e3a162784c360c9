"""Git over smart HTTP for agents: fetch only, one project, by a job token that dies with its attempt."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import os
import signal
import subprocess
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import parse_qs
from weakref import WeakValueDictionary

from sqlalchemy import Connection
from starlette.types import Message, Receive, Scope, Send

from keepflow import errors
from keepflow.core.names import is_name
from keepflow.crypto import tokens
from keepflow.engine.context import Master
from keepflow.gateway.answers import allow, header
from keepflow.gateway.limits import MIB, Disconnected
from keepflow.gateway.readers import Readers
from keepflow.store import jobs, projects, runs
from keepflow.store.jobs import Attempt
from keepflow.store.projects import Project
from keepflow.tools.git.serving import upload_pack_argv

#: What a fetching git may send, before and after unpacking; it only lists commits.
REQUEST_LIMIT = 16 * MIB
_PIECE = 64 * 1024
_MOST_PROCESSES = 8
#: How many of them one project may have: a job that reads slowly must not keep everybody else from their code.
_MOST_OF_PROJECT = 4
_QUEUE_SECONDS = 60.0
_FETCH_SECONDS = 900.0
_GZIP = 31  # zlib's number for "gzip, any window"
_PACK_FLUSH = b"0000"


class Unproven(errors.AuthError):
    """No living job token came along; git asks again with one when it is told how."""

    headers = ((b"www-authenticate", b'Basic realm="keepflow", Bearer'),)

    def __init__(self) -> None:
        super().__init__("this needs the token of a job that is running now")


class Git:
    """`GET /git/{project}/info/refs` and `POST /git/{project}/git-upload-pack`."""

    def __init__(self, master: Master, readers: Readers) -> None:
        self._master, self._readers = master, readers
        self._processes = asyncio.Semaphore(_MOST_PROCESSES)
        self._of_mirror: WeakValueDictionary[Path, asyncio.Semaphore] = WeakValueDictionary()
        self._capabilities: dict[Path, bytes] = {}  #: what git said this end can do, by mirror

    async def refs(self, scope: Scope, _receive: Receive, send: Send) -> None:
        """Answer what a git asks first: which refs there are, or what this end can do."""
        allow(scope, "GET")
        mirror = await self._mirror(scope)
        if parse_qs(scope["query_string"].decode("latin-1")).get("service") != ["git-upload-pack"]:
            raise errors.Denied("only fetching is possible here")
        if speaks_two(scope):
            await self._tell_capabilities(scope, send, mirror)
        else:
            # Clients of protocol 0 and 1 expect the service's name first; git http-backend does the same.
            prefix = b"001e# service=git-upload-pack\n" + _PACK_FLUSH
            await self.answer(scope, None, send, mirror, "advertisement", prefix)

    async def fetch(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one round of a fetch."""
        allow(scope, "POST")
        mirror = await self._mirror(scope)
        if header(scope, b"content-type") != b"application/x-git-upload-pack-request":
            raise errors.UsageError("this is no request of a fetching git", code="bad-request")
        await self.answer(scope, receive, send, mirror, "result", b"")

    async def _tell_capabilities(self, scope: Scope, send: Send, mirror: Path) -> None:
        """Answer protocol 2's first question; the answer names no ref, so git is asked once per mirror only."""
        if known := self._capabilities.get(mirror):
            await send({"type": "http.response.start", "status": 200, "headers": _headers("advertisement")})
            await send({"type": "http.response.body", "body": known})
            return
        said: list[bytes] = []

        async def listening(message: Message) -> None:
            said.append(message.get("body", b""))
            await send(message)

        await self.answer(scope, None, listening, mirror, "advertisement", b"")
        if (whole := b"".join(said)).endswith(_PACK_FLUSH):
            self._capabilities[mirror] = whole

    async def _mirror(self, scope: Scope) -> Path:
        """Return the mirror the token opens; a token of another project sees nothing here."""
        token, name = bearer(header(scope, b"authorization")), scope["path_params"]["project"]
        project = await self._readers.query(lambda conn: _project_of(conn, token))
        if not is_name(name) or project.name != name:
            raise errors.NotFound("there is no such project for this job")
        return self._master.mirrors.path(project)

    async def answer(
        self, scope: Scope, receive: Receive | None, send: Send, mirror: Path, kind: str, prefix: bytes
    ) -> None:
        """Answer one request of a fetching git from a repository; who asks has been looked at."""
        argv, environment = upload_pack_argv(mirror, advertise=receive is None)
        if speaks_two(scope):
            environment["GIT_PROTOCOL"] = "version=2"
        async with self.place(mirror), running(argv, environment, receive is not None) as process:
            feeding = asyncio.create_task(_feed(process, scope, receive)) if receive else None
            try:
                async with asyncio.timeout(_FETCH_SECONDS):
                    await _pass_on(process, feeding, send, kind, prefix)
            finally:
                if feeding:
                    feeding.cancel()

    @contextlib.asynccontextmanager
    async def place(self, mirror: Path) -> AsyncIterator[None]:
        """Hold one of the places for git's processes, of which one repository has few; raises Unavailable."""
        of_mirror = self._of_mirror.setdefault(mirror, asyncio.Semaphore(_MOST_OF_PROJECT))
        async with contextlib.AsyncExitStack() as held:
            try:
                async with asyncio.timeout(_QUEUE_SECONDS):
                    await held.enter_async_context(of_mirror)
                    await held.enter_async_context(self._processes)
            except TimeoutError:
                raise errors.Unavailable("too many fetches at once; try again soon", code="busy") from None
            yield


def _project_of(conn: Connection, token: str) -> Project:
    run = runs.by_id(conn, jobs.by_id(conn, attempt_of(conn, token).job_id).run_id)
    return projects.by_id(conn, run.project_id)


def attempt_of(conn: Connection, token: str) -> Attempt:
    """Return the attempt whose living job token this is; raises Unproven."""
    attempt = jobs.attempt_by_token(conn, tokens.digest(token)) if tokens.kind_of(token) == "job" else None
    if attempt is None:
        raise Unproven
    return attempt


def bearer(value: bytes | None) -> str:
    """Return the token of `Bearer TOKEN`, or of `Basic`, where it is the password; else the empty text."""
    scheme, _, rest = (value or b"").decode("latin-1").partition(" ")
    if scheme.lower() == "bearer":
        return rest.strip()
    if scheme.lower() == "basic":
        with contextlib.suppress(binascii.Error, UnicodeDecodeError):
            return base64.b64decode(rest.strip(), validate=True).decode("ascii").partition(":")[2]
    return ""


def speaks_two(scope: Scope) -> bool:
    """Say whether the client speaks protocol 2; nothing else of its header reaches the environment."""
    return b"version=2" in (header(scope, b"git-protocol") or b"").split(b":")


# --- the process -----------------------------------------------------------------------------------------------------


class Process:
    """A program with its output, and its input when it is fed.

    Started by `subprocess`, which shares the memory of this process with the child until it is another program. The
    event loop would copy its page tables instead, and stand still for 3 to 20 ms.
    """

    def __init__(self, popen: subprocess.Popen[bytes], stdout: asyncio.StreamReader) -> None:
        self._popen = popen
        self.stdout = stdout
        self.stdin: asyncio.StreamWriter | None = None

    async def wait(self) -> int:
        """Return the exit code, once it has ended."""
        return await asyncio.to_thread(self._popen.wait)

    def kill(self) -> None:
        """End it and what it started, if it still runs."""
        if self._popen.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._popen.pid, signal.SIGKILL)


@contextlib.asynccontextmanager
async def running(argv: list[str], environment: dict[str, str], feeds: bool) -> AsyncIterator[Process]:
    """Start a program in its own group and make sure that nothing of it is left."""
    loop, stdout = asyncio.get_running_loop(), asyncio.StreamReader()
    popen = subprocess.Popen(
        argv,
        env=environment,
        stdin=subprocess.PIPE if feeds else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        bufsize=0,
        start_new_session=True,
    )
    process = Process(popen, stdout)
    try:
        reading, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdout), popen.stdout)
        try:
            if popen.stdin is not None:
                writing, flow = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, popen.stdin)
                process.stdin = asyncio.StreamWriter(writing, flow, None, loop)
            yield process
        finally:
            reading.close()
            if process.stdin is not None:
                process.stdin.close()
    finally:
        process.kill()
        await process.wait()


async def _pass_on(process: Process, feeding: asyncio.Task[None] | None, send: Send, kind: str, prefix: bytes) -> None:
    output = process.stdout
    piece = await output.read(_PIECE)
    if not piece:
        await _explain_silence(process, feeding)
    await send({"type": "http.response.start", "status": 200, "headers": _headers(kind)})
    if prefix:
        await send({"type": "http.response.body", "body": prefix, "more_body": True})
    while piece:
        await send({"type": "http.response.body", "body": piece, "more_body": True})
        piece = await output.read(_PIECE)
    await send({"type": "http.response.body", "body": b""})


def _headers(kind: str) -> list[tuple[bytes, bytes]]:
    return [(b"content-type", f"application/x-git-upload-pack-{kind}".encode()), (b"cache-control", b"no-cache")]


async def _explain_silence(process: Process, feeding: asyncio.Task[None] | None) -> None:
    """Raise why git said nothing: the request was bad, or the mirror is."""
    if feeding is not None and feeding.done():
        feeding.result()
    code = await process.wait()
    if code != 0:
        raise errors.Unavailable("git could not read the mirror of this project", code="mirror")


async def _feed(process: Process, scope: Scope, receive: Receive) -> None:
    """Hand the request to git, unpacked; a request that is too large or broken ends the process instead."""
    if process.stdin is None:
        raise RuntimeError("a process that is fed was started without a pipe")
    try:
        async for piece in unpacked(scope, receive):
            process.stdin.write(piece)
            await process.stdin.drain()
        process.stdin.close()
        await receive()  # comes only when the client has gone away: nobody waits for the rest
        process.kill()
    except (BrokenPipeError, ConnectionResetError):
        return  # git knows enough, or has ended; its output says which
    except errors.KeepflowError:
        process.kill()
        raise


async def unpacked(scope: Scope, receive: Receive, limit: int = REQUEST_LIMIT) -> AsyncIterator[bytes]:
    """Yield a body in pieces, decompressed; raises TooLarge past the limit, UsageError and Disconnected."""
    encoding = header(scope, b"content-encoding") or b"identity"
    if encoding not in (b"gzip", b"x-gzip", b"identity"):
        raise errors.UsageError("only gzip is understood as Content-Encoding", code="bad-encoding")
    gunzip = None if encoding == b"identity" else zlib.decompressobj(_GZIP)
    left = limit
    more = True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            raise Disconnected("the client went away")
        more, piece = message.get("more_body", False), message.get("body", b"")
        if gunzip is not None:
            piece = _gunzip(gunzip, piece, left)
        left -= len(piece)
        if left < 0:
            raise errors.TooLarge(f"such a request may send at most {limit // MIB} MiB")
        if piece:
            yield piece


def _gunzip(gunzip: zlib._Decompress, piece: bytes, left: int) -> bytes:
    try:
        return gunzip.decompress(piece, left + 1)
    except zlib.error:
        raise errors.UsageError("the body is no gzip", code="bad-encoding") from None
