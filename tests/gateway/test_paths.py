"""Odd paths, hosts and connections against a real server: nothing is reached by a detour, every answer is guarded."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Iterator

import pytest

from tests.gateway.conftest import Served
from tests.gateway.test_hooks import _exchange, _status
from tests.processes import hook_headers, push_body
from tests.real.waiting import wait_until

GUARDED = ("/api/v1/projects", "/api/v1/agents", "/agents", "/projects/app", "/streams/events", "/git/app/info/refs")
BEFORE = (
    "",
    "/",
    "//",
    "/.",
    "/./",
    "/x/..",
    "/%2e",
    "/x/%2e%2e",
    "/%2f",
    "/%5c",
    "\\",
    "/static/..",
    "/login/..",
    "/;",
)
AFTER = ("", "/", "//", "/.", ";", ";.css", ";a=b", "%00", "%00.css", "/..;/", "%2f", "%20", "/%2e", ".css", "?x", "#x")
GUARDS = (b"x-content-type-options: nosniff", b"content-security-policy:", b"referrer-policy:", b"cache-control:")


def _detours() -> Iterator[str]:
    for before, path, after in itertools.product(BEFORE, GUARDED, AFTER):
        yield before + path + after
        yield before + path.replace("/", "//", 1) + after
        yield before + path.replace("a", "%61") + after
        yield before + path.upper() + after


def _ask(connection: socket.socket, target: str, method: str = "GET", host: str = "127.0.0.1") -> int:
    request = f"{method} {target} HTTP/1.1\r\nHost: {host}\r\nAccept: application/json\r\n\r\n"
    return _exchange(connection, request.encode("latin-1"))


def test_t04_no_detour_leads_past_the_login(served: Served) -> None:
    statuses: dict[int, int] = {}
    connection = served.master.connect()
    for target in _detours():
        status = _ask(connection, target)
        statuses[status] = statuses.get(status, 0) + 1
        assert status in (301, 308, 400, 401, 404), f"{target!r} gave {status}"
        if status == 400:  # what is no HTTP at all is answered and closed
            connection.close()
            connection = served.master.connect()
    connection.close()
    assert sum(statuses.values()) > 5000
    assert statuses[401] > 10, "the guarded addresses themselves must be among them"


@pytest.mark.parametrize(
    "target", ["*", "http://127.0.0.1/readyz", "readyz", "/readyz/", "/READYZ", "/hooks", "/hooks/"]
)
def test_what_is_no_address_of_ours_is_no_error_of_ours(served: Served, target: str) -> None:
    with served.master.connect() as connection:
        assert _ask(connection, target) in (200, 308, 400, 404, 405)
    assert "Traceback" not in served.master.log


def test_every_answer_carries_the_guards(served: Served) -> None:
    for path in (
        "/healthz",
        "/readyz",
        "/version",
        "/hooks/x",
        "/streams/events",
        "/git/x/info/refs",
        "/nothing",
        "/login",
        "/",
    ):
        with served.master.connect() as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            answer = b""
            while piece := connection.recv(65536):
                answer += piece
        head = answer.split(b"\r\n\r\n")[0].lower()
        assert [guard for guard in GUARDS if guard not in head] == [], path
        assert b"\r\nserver:" not in head


def test_a_forged_forwarding_header_changes_nothing(served: Served) -> None:
    reply = served.master.get(
        "/login", {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "evil.example", "Host": "localhost"}
    )
    assert reply.status == 200
    assert b"evil.example" not in reply.body
    assert "Strict-Transport-Security" not in reply.headers


def test_a_slow_upload_to_the_pages_holds_no_thread(served: Served) -> None:
    head = b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\n"
    held = []
    for _ in range(40):
        connection = served.master.connect()
        connection.sendall(head + b"Content-Length: 1000\r\n\r\nname=")
        held.append(connection)
    try:
        assert served.master.get("/login").status == 200
    finally:
        for connection in held:
            connection.close()


def test_an_upload_to_the_pages_is_limited(served: Served) -> None:
    with served.master.connect() as connection:
        head = b"POST /api/v1/apply HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n\r\n"
        assert _exchange(connection, head) == 413


def test_a_connection_without_a_request_is_closed(served: Served) -> None:
    body = push_body(sha=served.sha)

    def closed(connection: socket.socket) -> bool:
        assert served.master.ask("POST", "/hooks/app", body, hook_headers(body, "idlers")).status in (200, 202)
        connection.settimeout(0.01)
        try:
            return connection.recv(1) == b""
        except TimeoutError:
            return False

    with served.master.connect() as silent, served.master.connect() as dripping:
        dripping.sendall(b"GET /readyz HTTP/1.1\r\nHost: loc")
        wait_until(lambda: closed(silent), 60, "the silent connection is closed", every=0.5)
        wait_until(lambda: closed(dripping), 60, "the dripping connection is closed", every=0.5)


def test_requests_on_one_connection_do_not_mix(served: Served) -> None:
    body = push_body(sha=served.sha)
    lines = {"Host": "localhost", **hook_headers(body, "pipelined"), "Content-Length": str(len(body))}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    hook = f"POST /hooks/app HTTP/1.1\r\n{head}\r\n".encode() + body
    with served.master.connect() as connection:
        connection.sendall(hook)
        assert _status(connection) == 202
        connection.sendall(b"GET /version HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert _status(connection) == 200
