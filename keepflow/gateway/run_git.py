"""The repository that a run has of its own, for its jobs: fetched, added to, and the large files that belong to it.

Everything is asked with the token of a job that runs now. It opens the repository of that job's run and no other, and
lets the job add one commit at a time, under a ref that names its attempt.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs

from sqlalchemy import Connection
from starlette.types import Receive, Scope, Send

from keepflow import errors
from keepflow.core.handing_on import MOST_PACK
from keepflow.core.names import is_name, is_sha
from keepflow.engine import artifacts, clock, workspaces
from keepflow.engine.context import Master
from keepflow.gateway.answers import allow, header, send_bytes, send_json
from keepflow.gateway.artifacts import pieces, send_file
from keepflow.gateway.git import Git, Process, attempt_of, bearer, running, speaks_two, unpacked
from keepflow.gateway.limits import Room, declared_length
from keepflow.gateway.readers import Readers
from keepflow.store import jobs, projects, runs
from keepflow.store import workspaces as stored
from keepflow.store.jobs import Attempt
from keepflow.store.projects import Project
from keepflow.store.writer import Tx
from keepflow.tools.failpoints import fail
from keepflow.tools.git import receive_pack_argv

_COMMANDS = 4096  #: bytes before the pack: one ref, and what the client can do
_SAID = 64 * 1024  #: bytes of git's answer to a push
_PUSH_SECONDS = 900.0
_SERVICES = ("git-upload-pack", "git-receive-pack")
_FLUSH = b"0000"


@dataclass(frozen=True, slots=True)
class _Asker:
    """The job that asks, and where."""

    attempt: Attempt
    run_id: int
    project: Project


class RunGit:
    """`/git/{project}/runs/{number}/…`: `info/refs`, `git-upload-pack`, `git-receive-pack`, `files/{sha256}`."""

    def __init__(self, master: Master, readers: Readers, git: Git, room: Room) -> None:
        self._master, self._readers, self._git, self._room = master, readers, git, room

    async def refs(self, scope: Scope, _receive: Receive, send: Send) -> None:
        """Answer what a git asks first, for a fetch or for a push."""
        allow(scope, "GET")
        repository = await self._repository(await self._asker(scope))
        [service] = parse_qs(scope["query_string"].decode("latin-1")).get("service") or [""]
        if service not in _SERVICES:
            raise errors.Denied("only fetching and pushing are possible here")
        if service == _SERVICES[1]:
            await self._tell_pusher(repository, send)
            return
        prefix = b"" if speaks_two(scope) else b"001e# service=git-upload-pack\n" + _FLUSH
        await self._git.answer(scope, None, send, repository, "advertisement", prefix)

    async def fetch(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one round of a fetch."""
        allow(scope, "POST")
        repository = await self._repository(await self._asker(scope))
        if header(scope, b"content-type") != b"application/x-git-upload-pack-request":
            raise errors.UsageError("this is no request of a fetching git", code="bad-request")
        await self._git.answer(scope, receive, send, repository, "result", b"")

    async def push(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take the one commit that a job hands on, check it, and write it down."""
        allow(scope, "POST")
        asker = await self._asker(scope)
        if header(scope, b"content-type") != b"application/x-git-receive-pack-request":
            raise errors.UsageError("this is no request of a pushing git", code="bad-request")
        declared_length(scope, MOST_PACK)
        await self._check_room(asker, 0)
        repository = await self._repository(asker)
        with self._room.place(scope):
            body = unpacked(scope, receive, MOST_PACK)
            commands, rest = await _commands(body)
            commit = _commit(commands, asker.attempt)
            said, size = b"", 0
            if commit and not workspaces.has(self._master, asker.run_id, asker.attempt, commit):
                said, size = await self._take(repository, commands + rest, body)
            elif commit:  # it was taken before, and the answer did not get through
                said = _taken(workspaces.ref_of(asker.attempt, commit))
            if commit and workspaces.has(self._master, asker.run_id, asker.attempt, commit):
                fail("handing.taken")
                await self._record(asker, commit, size)
        kind = [(b"content-type", b"application/x-git-receive-pack-result")]
        await send_bytes(send, 200, said, kind)

    async def file(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take a large file, hand it on, or say whether it is here."""
        allow(scope, "PUT", "GET", "HEAD")
        asker, sha256 = await self._asker(scope), scope["path_params"]["sha256"]
        size = await self._readers.query(lambda conn: stored.file_of(conn, asker.run_id, sha256))
        if scope["method"] == "PUT":
            await self._keep(asker, sha256, scope, receive, send)
        elif size is None:
            raise errors.NotFound("there is no such file in this run", code="no-file")
        elif scope["method"] == "HEAD":
            await send_bytes(send, 200, b"", [])
        else:
            await send_file(send, artifacts.place_of(self._master.home, sha256), size)

    # --- who asks -----------------------------------------------------------------------------------------------------

    async def _asker(self, scope: Scope) -> _Asker:
        """Return the job whose token came along; another project or run than its own does not exist for it."""
        token, names = bearer(header(scope, b"authorization")), scope["path_params"]

        def find(conn: Connection) -> _Asker:
            attempt = attempt_of(conn, token)
            run = runs.by_id(conn, jobs.by_id(conn, attempt.job_id).run_id)
            project = projects.by_id(conn, run.project_id)
            if not is_name(names["project"]) or (project.name, run.number) != (names["project"], int(names["number"])):
                raise errors.NotFound("there is no such run for this job")
            return _Asker(attempt, run.id, project)

        return await self._readers.query(find)

    async def _repository(self, asker: _Asker) -> Path:
        mirror = self._master.mirrors.path(asker.project)

        def opened() -> Path:
            return workspaces.open_repository(self._master, asker.run_id, mirror)

        return await self._readers.call(opened)

    async def _check_room(self, asker: _Asker, size: int) -> None:
        def check(conn: Connection) -> None:
            workspaces.check_room(self._master, conn, asker.run_id, asker.attempt, size)

        await self._readers.query(check)

    # --- what is taken ------------------------------------------------------------------------------------------------

    async def _tell_pusher(self, repository: Path, send: Send) -> None:
        argv, environment = receive_pack_argv(repository, True, MOST_PACK)
        async with self._git.place(repository), running(argv, environment, False) as process:
            said = await process.stdout.read()
        body = b"001f# service=git-receive-pack\n" + _FLUSH + said
        await send_bytes(send, 200, body, [(b"content-type", b"application/x-git-receive-pack-advertisement")])

    async def _take(self, repository: Path, first: bytes, rest: AsyncIterator[bytes]) -> tuple[bytes, int]:
        """Hand a push to git; return what it said, and how many bytes came."""
        argv, environment = receive_pack_argv(repository, False, MOST_PACK)
        async with self._git.place(repository), running(argv, environment, True) as process:
            feeding = asyncio.create_task(self._feed(process, first, rest))
            try:
                async with _in_time():
                    said = await process.stdout.read(_SAID)
                    while more := await process.stdout.read(_SAID):
                        said += more[: max(0, _SAID - len(said))]
                    await process.wait()
                    return said, (await feeding) if feeding.done() or not said else 0
            finally:
                feeding.cancel()

    async def _feed(self, process: Process, first: bytes, rest: AsyncIterator[bytes]) -> int:
        if process.stdin is None:
            raise RuntimeError("a process that is fed was started without a pipe")
        size = len(first)
        try:
            process.stdin.write(first)
            async for piece in rest:
                if shutil.disk_usage(self._master.home).free < artifacts.RESERVE + len(piece):
                    raise errors.OutOfSpace("the disk of the master is full; free some space under KEEPFLOW_HOME")
                size += len(piece)
                process.stdin.write(piece)
                await process.stdin.drain()
            process.stdin.close()
        except (BrokenPipeError, ConnectionResetError):
            return size  # git has heard enough, or has ended; its answer says which
        except errors.KeepflowError:
            process.kill()
            raise
        return size

    async def _record(self, asker: _Asker, commit: str, size: int) -> None:
        now = clock.now()

        def record(tx: Tx) -> None:
            workspaces.record(tx, self._master, asker.run_id, asker.attempt.fence, commit, size, now)

        await asyncio.wrap_future(self._master.writer.submit(record))

    async def _keep(self, asker: _Asker, sha256: str, scope: Scope, receive: Receive, send: Send) -> None:
        declared_length(scope, artifacts.LARGEST)
        await self._check_room(asker, 0)
        with self._room.place(scope), artifacts.Incoming(self._master.home) as file:
            async for piece in pieces(receive):
                await asyncio.to_thread(file.write, piece)
            await self._check_room(asker, file.size)
            await asyncio.to_thread(file.finish, sha256)
            now = clock.now()

            def record(tx: Tx) -> None:
                workspaces.record_file(tx, self._master, asker.run_id, asker.attempt.fence, sha256, file.size, now)

            await asyncio.wrap_future(self._master.writer.submit(record))
        await send_json(send, 201, {"size": file.size})


@contextlib.asynccontextmanager
async def _in_time() -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(_PUSH_SECONDS):
            yield
    except TimeoutError:
        raise errors.Unavailable("the push took too long", code="busy") from None


async def _commands(body: AsyncIterator[bytes]) -> tuple[bytes, bytes]:
    """Read the lines before a pack, with the empty one at their end, and what came with them of the rest."""
    data, at = b"", 0
    while True:
        while len(data) < at + 4:
            data += await _more(body)
        size = _size(data[at : at + 4])
        if size == 0:
            return data[: at + 4], data[at + 4 :]
        at += size
        if size < 5 or at > _COMMANDS:
            raise errors.UsageError("this is no request of a pushing git", code="bad-request")


async def _more(body: AsyncIterator[bytes]) -> bytes:
    with contextlib.suppress(StopAsyncIteration):
        return await anext(body)
    raise errors.UsageError("the request breaks off", code="bad-request")


def _size(text: bytes) -> int:
    try:
        return int(text, 16)
    except ValueError:
        raise errors.UsageError("this is no request of a pushing git", code="bad-request") from None


def _commit(commands: bytes, attempt: Attempt) -> str | None:
    """Return the commit that a push adds, None when it adds nothing; raises Denied for all that is not the job's.

    A job adds refs of its own attempt. It changes none, removes none, and touches nobody else's.
    """
    if commands == _FLUSH:
        return None
    size = _size(commands[:4])
    old, _, named = commands[4:size].partition(b"\0")[0].decode("latin-1").strip().partition(" ")
    commit, _, ref = named.partition(" ")
    alone = commands[size:] == _FLUSH
    if not alone or set(old) != {"0"} or not is_sha(commit) or ref != workspaces.ref_of(attempt, commit):
        raise errors.Denied(f"a job adds one commit at a time, as refs/attempts/{attempt.fence}/COMMIT")
    return commit


def _taken(ref: str) -> bytes:
    lines = ("unpack ok\n", f"ok {ref}\n")
    return b"".join(b"%04x%b" % (len(line) + 4, line.encode()) for line in lines) + _FLUSH
