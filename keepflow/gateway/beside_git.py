"""What belongs to a commit and is not in it: submodules and files of Git LFS, for the jobs that ask for them.

Both are fetched by the master, with the project's credential, when the first job needs them. A job asks with its token
for what belongs to its project, and gets the list of submodules of its own run's commit only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar
from urllib.parse import parse_qs

from sqlalchemy import Connection
from starlette.types import Receive, Scope, Send

from keepflow import errors
from keepflow.core.names import is_name
from keepflow.engine import lfs, modules
from keepflow.engine.context import Master
from keepflow.gateway.answers import allow, header, send_json
from keepflow.gateway.artifacts import send_file
from keepflow.gateway.git import Git, attempt_of, bearer, speaks_two
from keepflow.gateway.readers import Readers
from keepflow.store import jobs, projects, runs
from keepflow.store.projects import Project
from keepflow.store.runs import Run

T = TypeVar("T")
_THREADS = 4  #: fetches from elsewhere at once, each of which may take minutes


class BesideGit:
    """`/git/{project}/submodules`, `/git/{project}/submodules/{repository}/…` and `/git/{project}/lfs/{oid}?size=…`."""

    def __init__(self, master: Master, readers: Readers, git: Git) -> None:
        self._master, self._readers, self._git = master, readers, git
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="beside-git")

    async def modules(self, scope: Scope, _receive: Receive, send: Send) -> None:
        """List the submodules of the commit of a job's run; all of them are here then."""
        allow(scope, "GET")
        project, run = await self._asker(scope)
        recursive = _query(scope, "recursive") == "1"
        found = await self._fetching(lambda: modules.of_commit(self._master, project, run.sha, recursive=recursive))
        await send_json(send, 200, {"items": [asdict(module) for module in found]})

    async def refs(self, scope: Scope, _receive: Receive, send: Send) -> None:
        """Answer what a git asks first that fetches a submodule."""
        allow(scope, "GET")
        repository = await self._repository(scope)
        if _query(scope, "service") != "git-upload-pack":
            raise errors.Denied("only fetching is possible here")
        prefix = b"" if speaks_two(scope) else b"001e# service=git-upload-pack\n0000"
        await self._git.answer(scope, None, send, repository, "advertisement", prefix)

    async def fetch(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one round of a fetch of a submodule."""
        allow(scope, "POST")
        repository = await self._repository(scope)
        if header(scope, b"content-type") != b"application/x-git-upload-pack-request":
            raise errors.UsageError("this is no request of a fetching git", code="bad-request")
        await self._git.answer(scope, receive, send, repository, "result", b"")

    async def lfs(self, scope: Scope, _receive: Receive, send: Send) -> None:
        """Hand on a file that Git LFS keeps."""
        allow(scope, "GET")
        project, _ = await self._asker(scope)
        text = _query(scope, "size")
        if not text.isdecimal() or len(text) > 15:
            raise errors.UsageError("size is a number of bytes", code="bad-size")
        oid, size = scope["path_params"]["oid"], int(text)
        path = await self._fetching(lambda: lfs.fetched(self._master, project, oid, size))
        await send_file(send, path, size)

    def close(self) -> None:
        """Let nobody wait for what is still being fetched."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _fetching(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    async def _repository(self, scope: Scope) -> Path:
        project, _ = await self._asker(scope)
        path = modules.place_of(self._master, project, scope["path_params"]["repository"])
        if not path.exists():
            raise errors.NotFound("there is no such submodule for this job")
        return path

    async def _asker(self, scope: Scope) -> tuple[Project, Run]:
        """Return the project and the run of the job whose token came along; no other project exists for it."""
        token, name = bearer(header(scope, b"authorization")), scope["path_params"]["project"]

        def find(conn: Connection) -> tuple[Project, Run]:
            run = runs.by_id(conn, jobs.by_id(conn, attempt_of(conn, token).job_id).run_id)
            project = projects.by_id(conn, run.project_id)
            if not is_name(name) or project.name != name:
                raise errors.NotFound("there is no such project for this job")
            return project, run

        return await self._readers.query(find)


def _query(scope: Scope, name: str) -> str:
    asked: dict[str, list[str]] = parse_qs(scope["query_string"].decode("latin-1"))
    return asked.get(name, [""])[0]
