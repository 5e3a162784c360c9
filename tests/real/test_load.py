"""The load is the oracle for "no request was lost": it must see every loss, and cry about nothing else."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Awaitable, Callable

import pytest

from tests.real.load import Plan, carry_out

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def read_request(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Read one request and return its method and body; an empty method when the client went away."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return b"", b""
    length = next((int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length")), 0)
    return head.split()[0], await reader.readexactly(length)


def answer(body: bytes, status: bytes = b"200 OK", *more: bytes) -> bytes:
    """Return a whole HTTP answer."""
    headers = b"".join(line + b"\r\n" for line in more)
    return b"HTTP/1.1 " + status + b"\r\nContent-Length: %d\r\n" % len(body) + headers + b"\r\n" + body


def load(handler: Handler, requests: int = 40) -> tuple[dict[str, object], list[dict[str, object]]]:
    """Run a load of a few clients against a server made of one handler; return its summary and its log."""

    async def both() -> tuple[dict[str, object], str]:
        server = await asyncio.start_server(handler, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        log = io.StringIO()
        plan = Plan("127.0.0.1", port, "app.example.org", clients=4, rate=0, seconds=20, most=requests)
        summary = await carry_out(plan, log)
        server.close()
        return summary, log.getvalue()

    summary, log = asyncio.run(both())
    return summary, [json.loads(line) for line in log.splitlines()]


async def good(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer as an application that is well."""
    while True:
        method, body = await read_request(reader)
        if not method:
            writer.close()
            return
        writer.write(answer(body if method == b"POST" else b"<p>marker: one</p>"))


def test_a_good_server_loses_nothing_and_its_marks_are_counted() -> None:
    summary, log = load(good)
    assert summary["failed"] == 0
    assert summary["sent"] == summary["answered"] == len(log) >= 40
    assert [(mark["mark"], mark["count"] > 0) for mark in summary["marks"]] == [("one", True)]  # type: ignore[attr-defined]  # from JSON
    assert {entry["method"] for entry in log} == {"GET", "POST"}
    assert summary["connections"] == 4, "clients must keep their connections"


def test_an_orderly_close_between_two_requests_is_no_failure() -> None:
    async def closing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        method, body = await read_request(reader)
        if method:
            writer.write(answer(body, b"200 OK", b"Connection: close"))
        writer.close()

    summary, _ = load(closing)
    assert summary["failed"] == 0
    assert summary["connections"] == summary["sent"]


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (b"", "connection closed without an answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhal", "connection closed without an answer"),
        (answer(b"<p>bad gateway</p>", b"502 Bad Gateway"), "status 502"),
        (answer(b"moved", b"302 Found"), "status 302"),
        (b"no http at all\r\n\r\n", "ValueError"),
    ],
)
def test_every_kind_of_loss_is_counted(reply: bytes, kind: str) -> None:
    async def losing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(reply)
        writer.close()

    summary, log = load(losing, requests=8)
    assert summary["answered"] == 0
    assert summary["failed"] == summary["sent"] == len(log)
    assert set(summary["errors"]) == {kind}  # type: ignore[call-overload]  # from JSON


def test_an_answer_to_somebody_elses_post_is_a_failure() -> None:
    async def mixing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            method, body = await read_request(reader)
            if not method:
                writer.close()
                return
            writer.write(answer(body[::-1] if method == b"POST" else b"fine"))

    summary, log = load(mixing)
    assert summary["errors"] == {"not the body that was posted": sum(entry["method"] == "POST" for entry in log)}


def test_a_refused_connection_is_a_failure() -> None:
    async def nobody() -> dict[str, object]:
        server = await asyncio.start_server(good, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        server.close()
        await server.wait_closed()
        return await carry_out(Plan("127.0.0.1", port, "x", clients=2, rate=0, most=6), io.StringIO())

    assert asyncio.run(nobody())["errors"] == {"connection refused": 6}


def test_the_rate_is_kept() -> None:
    async def slow() -> dict[str, object]:
        server = await asyncio.start_server(good, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        plan = Plan("127.0.0.1", port, "x", clients=10, rate=100, seconds=1.0)
        summary = await carry_out(plan, io.StringIO())
        server.close()
        return summary

    assert 60 <= int(str(asyncio.run(slow())["sent"])) <= 115
