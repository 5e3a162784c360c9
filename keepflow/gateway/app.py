"""The one ASGI application of the master: machines are served here, people by the Flask application behind it."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import structlog
from starlette.types import ASGIApp, Receive, Scope, Send

from keepflow import errors
from keepflow.engine.context import Master
from keepflow.gateway.agents import Agents
from keepflow.gateway.answers import Answers
from keepflow.gateway.artifacts import Artifacts
from keepflow.gateway.bell import Closing
from keepflow.gateway.beside_git import BesideGit
from keepflow.gateway.git import Git
from keepflow.gateway.health import Health
from keepflow.gateway.hooks import Hooks
from keepflow.gateway.limits import MIB, Lingering, Room, WholeBody, check_path
from keepflow.gateway.proof import Proof
from keepflow.gateway.readers import Readers
from keepflow.gateway.run_git import RunGit
from keepflow.gateway.streams import Streams

log = structlog.get_logger(__name__)

#: Memory for the bodies of webhooks that are being received, checked or stored at one time.
_HOOK_ROOM = 160 * MIB
_WEB_ROOM = 32 * MIB
#: Largest request of a person or of `keepflow apply`; the Flask application has the same limit.
_WEB_LIMIT = MIB
_WEB_THREADS = 16
#: First segments that belong to machines alone; what is not found below them is nowhere else either.
_MACHINES = frozenset({"hooks", "git", "streams", "artifacts"})

#: The repository that a run has of its own.
_RUN = r"(?P<project>[^/]+)/runs/(?P<number>[1-9][0-9]{0,8})"

#: The copy of the repository of a submodule.
_MODULE = r"(?P<project>[^/]+)/submodules/(?P<repository>[0-9a-f]{32})"


class Gateway:
    """An ASGI application; `close` ends its long connections, each with a farewell."""

    def __init__(self, master: Master, web: Any | None) -> None:
        self._readers = Readers(master.database)
        self._closing = Closing()
        self.agents = Agents(master, self._readers, self._closing)
        hooks = Hooks(master, self._readers, Room(_HOOK_ROOM, senders=256, per_address=64))
        git = Git(master, self._readers)
        beside = BesideGit(master, self._readers, git)
        of_runs = RunGit(master, self._readers, git, Room(0, senders=32, per_address=8))
        kept = Artifacts(master, self._readers, Room(0, senders=64, per_address=16))
        health = Health(master, self._readers)
        streams = Streams(master, self._readers, self._closing)
        self._beside = beside
        self._web = _web_app(web)
        self._routes: dict[str, list[tuple[re.Pattern[str], ASGIApp]]] = {}
        for path, endpoint in (
            (r"/hooks/(?P<project>[^/]+)", hooks),
            (r"/agents/enrol", self.agents.enrol),
            (r"/agents/proof", Proof(master.order_key)),
            (r"/git/(?P<project>[^/]+)/info/refs", git.refs),
            (r"/git/(?P<project>[^/]+)/git-upload-pack", git.fetch),
            (r"/git/(?P<project>[^/]+)/submodules", beside.modules),
            (rf"/git/{_MODULE}/info/refs", beside.refs),
            (rf"/git/{_MODULE}/git-upload-pack", beside.fetch),
            (r"/git/(?P<project>[^/]+)/lfs/(?P<oid>[0-9a-f]{64})", beside.lfs),
            (rf"/git/{_RUN}/info/refs", of_runs.refs),
            (rf"/git/{_RUN}/git-upload-pack", of_runs.fetch),
            (rf"/git/{_RUN}/git-receive-pack", of_runs.push),
            (rf"/git/{_RUN}/files/(?P<sha256>[0-9a-f]{{64}})", of_runs.file),
            (r"/artifacts/kept", kept.keep),
            (r"/artifacts/needed", kept.needed),
            (r"/artifacts/needed/(?P<id>[1-9][0-9]{0,17})", kept.fetch),
            (r"/streams/events", streams.events),
            (r"/streams/runs/(?P<project>[^/]+)/(?P<number>[1-9][0-9]{0,8})/log", streams.run_log),
            (r"/healthz", health.alive),
            (r"/readyz", health.ready),
            (r"/version", health.version),
        ):
            self._routes.setdefault(path.split("/")[1], []).append((re.compile(path), endpoint))
        self._http: ASGIApp = Lingering(Answers(self._dispatch))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or one WebSocket."""
        if scope["type"] == "http":
            try:
                await self._http(scope, receive, send)
            except asyncio.CancelledError:
                if not self._closing.begun:
                    raise
                log.info("a request was cut off by the stop", path=scope["path"])
        elif scope["type"] == "websocket" and scope["path"] == "/agents/link":
            await self.agents.link(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})

    async def close(self, patience: float) -> None:
        """Say farewell on every stream and every agent's link; returns after `patience` seconds at the latest."""
        await self._closing.begin(patience)
        self._readers.close()
        self._beside.close()

    async def _dispatch(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        check_path(path)
        first = path.split("/", 2)[1]
        for pattern, endpoint in self._routes.get(first, ()):
            match = pattern.fullmatch(path)
            if match is not None:
                scope["path_params"] = match.groupdict()
                await endpoint(scope, receive, send)
                return
        if first in _MACHINES:
            raise errors.NotFound("there is nothing at this address")
        await self._web(scope, receive, send)


def create_app(master: Master, web: Any | None) -> Gateway:
    """Build the application around a master; `web` is the WSGI application for people, or None."""
    return Gateway(master, web)


def _web_app(web: Any | None) -> ASGIApp:
    if web is None:
        return _nothing
    from a2wsgi import WSGIMiddleware

    threads = WSGIMiddleware(web, workers=_WEB_THREADS)
    return WholeBody(threads, Room(_WEB_ROOM, senders=64, per_address=64), _WEB_LIMIT)  # type: ignore[arg-type]  # a2wsgi has types of its own for the same protocol


async def _nothing(_scope: Scope, _receive: Receive, _send: Send) -> None:
    raise errors.NotFound("there is nothing at this address")
