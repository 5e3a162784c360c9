"""The server process: one uvicorn on one port until a signal; long connections get a farewell, then all stops."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext

import structlog
import uvicorn

from keepflow import errors
from keepflow.cli.wiring import Built, build, claim
from keepflow.config.home import Home
from keepflow.config.master_settings import MasterSettings
from keepflow.gateway.idlers import Idlers
from keepflow.tools.files import write_atomic
from keepflow.wire.messages import FRAME_LIMIT

log = structlog.get_logger(__name__)

_FAREWELLS = 0.7  #: seconds for streams and agents' links to end
_REQUESTS = 1  #: seconds for requests under way
_ENGINE = 1.2  #: seconds for the engine
_BACKLOG = 2048
_SPARE_FILES = 512  #: descriptors kept for the database, logs, git and whatever else is not a connection
_MOST_CONNECTIONS = 20_000
#: Longer than nginx keeps its idle connections (60 s): who closes first must not be the one who is being asked.
_KEEP_ALIVE = 75

#: What runs beside the server, from the moment it answers until it is about to stop.
Companion = Callable[[Built, str], AbstractAsyncContextManager[None]]


def serve(settings: MasterSettings, companion: Companion | None = None) -> None:
    """Run a master until SIGTERM or SIGINT; raises Refused `second-master`, Unavailable `port`, what `build` raises."""
    os.umask(0o077)
    connections = _raise_file_limit()
    database = claim(settings)
    try:
        listener = _listen(settings)
    except BaseException:
        database.dispose()
        raise
    address = _address(listener)
    built = build(settings, database, address)
    try:
        with _running_loop() as runner:
            runner.run(_serve(settings, built, listener, address, connections, companion))
    finally:
        built.engine.stop(_ENGINE)
        log.info("stopped")


def leave(code: int = 0) -> None:
    """End the process now: a request that hangs in a thread of the pages must not keep it."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


async def _serve(
    settings: MasterSettings,
    built: Built,
    listener: socket.socket,
    address: str,
    connections: int,
    companion: Companion | None,
) -> None:
    stop = _on_signals()
    server = _Server(_config(settings, built, connections))
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    idlers = Idlers(server.server_state.connections)
    watching = asyncio.create_task(idlers.watch())
    home = settings.place()
    try:
        await server.up.wait()
        _spare_the_collector()
        write_atomic(home.address_file, json.dumps({"url": address, "pid": os.getpid()}).encode(), 0o600)
        log.info("ready", url=address, home=str(home.root))
        async with companion(built, address) if companion else nullcontext():
            await asyncio.wait((asyncio.create_task(stop.wait()), serving), return_when=asyncio.FIRST_COMPLETED)
            log.info("stopping")
    finally:
        watching.cancel()
        _forget_address(home)
        await built.gateway.close(_FAREWELLS)
        idlers.dismiss()
        server.should_exit = True
        await serving


class _Server(uvicorn.Server):
    """uvicorn, with the signals left to us: it would close agents' links before anybody said farewell on them."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take no signals."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to serve, and say so."""
        await super().startup(sockets)
        self.up.set()


def _config(settings: MasterSettings, built: Built, connections: int) -> uvicorn.Config:
    return uvicorn.Config(
        built.gateway,
        http="httptools",
        ws="websockets-sansio",
        ws_max_size=FRAME_LIMIT,
        ws_ping_interval=None,  # heartbeats of the protocol itself go both ways
        ws_per_message_deflate=False,  # a hundred kilobytes and more for each idle agent
        interface="asgi3",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=list(settings.trusted_proxies),
        server_header=False,
        limit_concurrency=connections,
        backlog=_BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=_REQUESTS,
    )


def _running_loop() -> asyncio.Runner:
    import uvloop

    return asyncio.Runner(loop_factory=uvloop.new_event_loop)


def _spare_the_collector() -> None:
    """Let the collector leave alone what the start has made: to look through all of it stops everybody for 50 ms."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


def _on_signals() -> asyncio.Event:
    """Return what SIGTERM and SIGINT set; a second one ends the process at once, which loses nothing either."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def asked() -> None:
        if stop.is_set():
            leave(1)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked)
    return stop


def _listen(settings: MasterSettings) -> socket.socket:
    try:
        found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, place = found[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(place)
        listener.listen(_BACKLOG)
    except OSError as error:
        raise errors.Unavailable(
            f"cannot listen on {settings.listen}: {error.strerror or error}; choose another with --listen", code="port"
        ) from None
    return listener


def _address(listener: socket.socket) -> str:
    """Return the URL under which this machine itself reaches the server."""
    host, port = listener.getsockname()[:2]
    local = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
    return f"http://[{local}]:{port}" if ":" in local else f"http://{local}:{port}"


def _forget_address(home: Home) -> None:
    with contextlib.suppress(OSError, ValueError):
        if json.loads(home.address_file.read_bytes())["pid"] == os.getpid():
            home.address_file.unlink()


def _raise_file_limit() -> int:
    """Allow as many open files as the system lets us, and return how many of them may be connections."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = hard if hard != resource.RLIM_INFINITY else _MOST_CONNECTIONS + _SPARE_FILES
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return max(64, min(_MOST_CONNECTIONS, wanted - _SPARE_FILES))
