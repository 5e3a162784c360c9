"""The sample application is what other tests measure with, so it must do what it says."""

from __future__ import annotations

import gzip
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from keepflow.config.flow_file import load_flow
from keepflow.core.flows import JobKind
from keepflow.ports import discover
from tests.real.hosts import free_port, wait_until
from tests.real.sample import SOURCES
from tests.real.scripted import get


@dataclass
class App:
    """A running sample application."""

    directory: Path
    port: int
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    """The application over a copy of its files, as an image would hold them."""
    directory = tmp_path / "project"
    shutil.copytree(SOURCES, directory)
    (directory / "log").mkdir()
    (directory / "www/marker.txt").write_text("a <b>\n")
    (directory / "www/build-info").write_text("commit=abc\nbuild=12\n")
    (directory / "www/app.js.gz").write_bytes(gzip.compress((directory / "www/app.js").read_bytes()))
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", str(directory / "serve.py"), "test"], env={**os.environ, "PORT": str(port)}
    )
    started = App(directory, port, process)
    wait_until(lambda: get(f"{started.url}/healthz").status == 200, 10, "the application answering")
    yield started
    process.kill()
    process.wait(timeout=5)


def test_its_flow_file_has_the_two_flows() -> None:
    text = (SOURCES / ".keepflow.yml").read_text()
    flows = load_flow(text, discover("keepflow.steps")).flows
    assert {name: flow.on.push for name, flow in flows.items()} == {"dev": ("dev",), "test": ("master", "main")}
    assert [part.target for flow in flows.values() for part in flow.parts if part.kind == JobKind.DEPLOY] == [
        "dev",
        "test",
    ]


def test_the_page_shows_marker_and_version_and_escapes_them(app: App) -> None:
    page = get(f"{app.url}/").body.decode()
    assert "marker: a &lt;b&gt;" in page
    assert "build <b>12</b> of commit <code>abc</code>" in page
    assert json.loads(get(f"{app.url}/version").body) == {"commit": "abc", "build": "12", "environment": "test"}


def test_a_packed_file_is_sent_to_who_takes_it(app: App) -> None:
    plain, packed = get(f"{app.url}/app.js"), get(f"{app.url}/app.js", Accept_Encoding="gzip")
    assert "content-encoding" not in plain.headers
    assert packed.headers["content-encoding"] == "gzip"
    assert gzip.decompress(packed.body) == plain.body == (app.directory / "www/app.js").read_bytes()


def test_one_connection_carries_many_requests_of_both_kinds(app: App) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", app.port, timeout=5)
    connection.connect()
    kept = connection.sock
    for body in (b"", b"x" * 100_000, b"\r\n\r\n"):
        connection.request("POST", "/echo", body=body)
        assert connection.getresponse().read() == body
        connection.request("GET", "/healthz")
        assert connection.getresponse().read() == b"ok\n"
    assert connection.sock is kept
    connection.close()


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /../serve.py HTTP/1.1\r\n\r\n", b"404"),
        (b"GET /build-info HTTP/1.1\r\n\r\n", b"404"),
        (b"DELETE / HTTP/1.1\r\n\r\n", b"405"),
        (b"GET /echo HTTP/1.1\r\n\r\n", b"405"),
        (b"nonsense\r\n\r\n", b"400"),
        (b"POST /echo HTTP/1.1\r\nContent-Length: -1\r\n\r\n", b"400"),
        (b"POST /echo HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n", b"413"),
        (b"POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"400"),
    ],
)
def test_what_it_does_not_serve_gets_its_status(app: App, request_: bytes, status: bytes) -> None:
    with socket.create_connection(("127.0.0.1", app.port), timeout=5) as connection:
        connection.sendall(request_)
        assert connection.recv(100).split()[1] == status
    assert get(f"{app.url}/healthz").status == 200


def test_asked_to_end_it_finishes_what_it_began_and_takes_nothing_new(app: App) -> None:
    address = ("127.0.0.1", app.port)
    with socket.create_connection(address, timeout=5) as slow, socket.create_connection(address, timeout=5) as idle:
        slow.sendall(b"GET /slow?ms=1200 HTTP/1.1\r\n\r\n")
        idle.sendall(b"GET /healthz HTTP/1.1\r\n\r\n")
        assert idle.recv(4) == b"HTTP"
        app.process.send_signal(signal.SIGTERM)
        wait_until(lambda: refused(app.port), 5, "no new connection being taken")
        assert all_of(idle).endswith(b"ok\n"), "an idle connection is closed after its last answer"
        answer = all_of(slow)
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"Connection: close" in answer
    assert answer.endswith(b"ok\n")
    assert app.process.wait(timeout=5) == 0
    assert (app.directory / "log/test.log").read_text().splitlines()[-1].endswith("stop build 12")


def all_of(connection: socket.socket) -> bytes:
    """Read until the other side closes."""
    data = b""
    while chunk := connection.recv(4096):
        data += chunk
    return data


def refused(port: int) -> bool:
    """Say whether nobody listens."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except ConnectionRefusedError:
        return True
    return False
