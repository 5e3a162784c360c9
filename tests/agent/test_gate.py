"""The gate: consecutive passes let through, everything else is told at once with the container's last words."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from keepflow.agent.gate import Gate
from keepflow.core.flows import Container, Health
from keepflow.errors import DeployFailed
from keepflow.ports import SlotSpec
from tests.agent.fakes import FakeTarget

HEALTH = Health(path="/up", within=1.0, successes=3, timeout=0.3, interval=0.02)


@pytest.fixture
def app() -> Iterator[Any]:
    """An application whose answers are told by `app.statuses`; `app.asked` is what it was asked."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.asked.append((self.path, self.headers["Host"]))
            status = next(server.statuses)
            if callable(status):
                status = status()
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        statuses: Iterator[int | Callable[[], int]] = itertools.repeat(200)
        asked: list[tuple[str, str]]

    server = Server(("127.0.0.1", 0), Handler)
    server.asked = []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.005})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def gate(app: Any, mode: str = "ok", health: Health = HEALTH) -> tuple[Gate, FakeTarget]:
    target = FakeTarget()
    spec = SlotSpec("shop", "main", "blue", "127.78.0.2", "127.78.0.0/28", "i", Container(), {"MODE": mode}, {})
    container = target.create(spec)
    target.start(container)
    return Gate(target, container, f"127.0.0.1:{app.server_port}", "shop.example.org", health), target


@pytest.fixture
def closing() -> Iterator[list[FakeTarget]]:
    targets: list[FakeTarget] = []
    yield targets
    for target in targets:
        target.close()


def test_it_asks_as_the_public_name_until_so_many_passes_in_a_row(app: Any, closing: list[FakeTarget]) -> None:
    app.statuses = iter([500, 200, 200, 404, 302, 200, 204])
    waiting, target = gate(app)
    closing.append(target)
    evidence = waiting.wait()
    assert evidence.tries == len(app.asked) == 7
    assert set(app.asked) == {("/up", "shop.example.org")}
    assert evidence.last == "status 204 on /up"


@pytest.mark.parametrize("status", [404, 500, 503])
def test_one_that_never_passes_fails_when_its_time_is_over(app: Any, closing: list[FakeTarget], status: int) -> None:
    app.statuses = itertools.repeat(status)
    waiting, target = gate(app)
    closing.append(target)
    began = time.monotonic()
    with pytest.raises(DeployFailed, match=f"status {status} on /up") as failed:
        waiting.wait()
    assert failed.value.code == "unhealthy"
    assert failed.value.log_tail.startswith("last words")
    assert 0.9 < time.monotonic() - began < 2.0


def test_a_try_that_hangs_costs_only_its_own_time(app: Any, closing: list[FakeTarget]) -> None:
    def hang() -> int:
        time.sleep(0.5)
        return 200

    app.statuses = itertools.chain([hang], itertools.repeat(200))
    waiting, target = gate(app)
    closing.append(target)
    assert waiting.wait().seconds < 0.6


def test_a_container_that_has_ended_ends_the_gate_long_before_its_time(app: Any) -> None:
    app.statuses = itertools.repeat(500)
    waiting, _ = gate(app, "exit", Health(within=30.0))
    began = time.monotonic()
    with pytest.raises(DeployFailed, match="exit code 7") as failed:
        waiting.wait()
    assert failed.value.code == "exited"
    assert time.monotonic() - began < 1.0


def test_a_container_that_ends_while_it_is_asked_is_noticed(app: Any) -> None:
    waiting, target = gate(app, health=Health(within=30.0, interval=0.02))

    def die() -> int:
        target.crash("kf-shop-main-blue")
        return 500

    app.statuses = itertools.chain([die], itertools.repeat(500))
    with pytest.raises(DeployFailed) as failed:
        waiting.wait()
    assert failed.value.code == "exited"


def test_a_container_that_was_asked_to_end_is_no_fault_of_the_release(app: Any) -> None:
    waiting, target = gate(app, health=Health(within=30.0, interval=0.02))

    def stop() -> int:
        target.crash("kf-shop-main-blue", 143)
        return 500

    app.statuses = itertools.chain([stop], itertools.repeat(500))
    with pytest.raises(DeployFailed, match="by a restart of the engine") as failed:
        waiting.wait()
    assert failed.value.code == "stopped-outside"
