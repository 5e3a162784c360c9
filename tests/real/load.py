"""A load of keep-alive clients, and the outside oracle for "no request was lost".

`python -m tests.real.load URL --out FILE` is a process of its own; `load_process.Load` starts and ends it in tests.
Each client keeps one connection and sends GET and POST in turn; nothing is ever sent again. A request has failed when
it was sent and got no complete 2xx answer, or a wrong one: a POST must return the bytes that were posted. A server may
close a connection between two requests, as HTTP allows: an idle close seen before the next request is no failure.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import re
import secrets
import signal
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import urlsplit

REQUEST_SECONDS = 10.0  #: an answer that takes longer is a failure
MARK = r"marker: ([^<\s]+)"
MOST_SECONDS = 1800.0
MOST_REQUESTS = 2_000_000


@dataclass(frozen=True, slots=True)
class Plan:
    """What to send where, and when to end."""

    host: str
    port: int
    host_header: str
    get_path: str = "/"
    post_path: str = "/echo"
    clients: int = 40
    rate: float = 600.0  #: requests per second of all clients together; 0 is as fast as they can
    seconds: float = MOST_SECONDS
    until_file: Path | None = None
    mark: str = MARK  #: what to remember of a GET's body: its first group
    most: int = MOST_REQUESTS


class Answer(Exception):
    """An answer that counts as a failure."""


@dataclass(slots=True)
class Tally:
    """What the clients saw, as it comes in; every request is written to the log at once."""

    log: TextIO
    sent: int = 0
    times: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    failures: list[dict[str, Any]] = field(default_factory=list)
    marks: dict[str, dict[str, Any]] = field(default_factory=dict)
    connections: int = 0
    closes: int = 0
    longest_gap: float = 0.0
    last_good: float = field(default_factory=time.monotonic)

    def good(self, method: str, began: float, mark: str) -> None:
        """Count an answer that is as it should be."""
        now = time.monotonic()
        self.times.append(now - began)
        self.longest_gap = max(self.longest_gap, now - self.last_good)
        self.last_good = now
        at = round(time.time(), 4)
        if mark:
            seen = self.marks.setdefault(mark, {"mark": mark, "first": at, "last": at, "count": 0})
            seen["last"] = at
            seen["count"] += 1
        self._write({"at": at, "method": method, "ms": round((now - began) * 1000, 2), "status": 200, "mark": mark})

    def bad(self, method: str, began: float, why: str) -> None:
        """Count a request that was sent and did not get its answer."""
        self.errors[why] += 1
        entry = {
            "at": round(time.time(), 4),
            "method": method,
            "ms": round((time.monotonic() - began) * 1000, 2),
            "error": why,
        }
        if len(self.failures) < 50:
            self.failures.append(entry)
        self._write(entry)

    def _write(self, entry: dict[str, Any]) -> None:
        self.log.write(json.dumps(entry) + "\n")

    def summary(self, began: float) -> dict[str, Any]:
        """Return everything as one JSON-able value; times in milliseconds, moments in seconds since 1970."""
        failed = sum(self.errors.values())
        return {
            "sent": self.sent,
            "answered": len(self.times),
            "failed": failed,
            "errors": dict(self.errors),
            "failures": self.failures,
            "p50_ms": _quantile(self.times, 0.50),
            "p99_ms": _quantile(self.times, 0.99),
            "max_ms": _quantile(self.times, 1.0),
            "longest_gap_ms": round(max(self.longest_gap, time.monotonic() - self.last_good) * 1000, 2),
            "seconds": round(time.monotonic() - began, 3),
            "connections": self.connections,
            "orderly_closes": self.closes,
            "marks": sorted(self.marks.values(), key=lambda mark: mark["first"]),
        }


def _quantile(times: list[float], share: float) -> float:
    """Return a quantile of durations in milliseconds; 0 when there are none."""
    if not times:
        return 0.0
    ordered = sorted(times)
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1000, 2)


class Client:
    """One keep-alive client: one connection, one request at a time."""

    def __init__(self, plan: Plan, tally: Tally) -> None:
        self._plan = plan
        self._tally = tally
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._mark = re.compile(plan.mark.encode())

    async def request(self, method: str) -> None:
        """Send one request and count its outcome."""
        self._tally.sent += 1
        began = time.monotonic()
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                mark = await self._exchange(method)
        except (OSError, EOFError, TimeoutError, Answer, ValueError) as error:
            self._tally.bad(method, began, _name(error))
            self._drop()
        else:
            self._tally.good(method, began, mark)

    async def _exchange(self, method: str) -> str:
        """Send one request on the open connection or a new one, and return the mark found in its answer."""
        reader, writer = await self._connection()
        posted = secrets.token_hex(secrets.randbelow(500) + 8).encode() if method == "POST" else b""
        path = self._plan.post_path if method == "POST" else self._plan.get_path
        head = f"{method} {path} HTTP/1.1\r\nHost: {self._plan.host_header}\r\n"
        if method == "POST":
            head += f"Content-Type: text/plain\r\nContent-Length: {len(posted)}\r\n"
        writer.write(head.encode() + b"\r\n" + posted)
        await writer.drain()
        status, headers, body = await _read_answer(reader)
        if headers.get("connection", "").lower() == "close":
            self._drop()
        if not 200 <= status < 300:
            raise Answer(f"status {status}")
        if method == "POST":
            if body != posted:
                raise Answer("not the body that was posted")
            return ""
        found = self._mark.search(body)
        return found[1].decode(errors="replace") if found else ""

    async def _connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Return the kept connection, or a new one when there is none or the server closed it in the meantime."""
        if self._streams is not None and (self._streams[0].at_eof() or self._streams[1].is_closing()):
            self._tally.closes += 1
            self._drop()
        if self._streams is None:
            self._tally.connections += 1
            self._streams = await asyncio.open_connection(self._plan.host, self._plan.port)
        return self._streams

    def _drop(self) -> None:
        """Close the connection, if any."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def run(self, number: int, over: asyncio.Event) -> None:
        """Send GET and POST in turn at this client's share of the rate until it is over."""
        pause = self._plan.clients / self._plan.rate if self._plan.rate else 0.0
        due = time.monotonic() + pause * number / self._plan.clients
        turn = number
        while not over.is_set() and self._tally.sent < self._plan.most:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            if over.is_set():
                break
            await self.request("POST" if turn % 2 else "GET")
            turn += 1
            due = max(due + pause, time.monotonic())  # what was missed is not made up for: no bursts after a stall
        self._drop()


async def _read_answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    """Read one HTTP/1.1 answer: its status, its headers in lower case, its body."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    status = int(head[0].split()[1])
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    if headers.get("transfer-encoding", "").lower() == "chunked":
        body = b""
        while size := int(await reader.readline(), 16):
            body += await reader.readexactly(size)
            await reader.readexactly(2)
        await reader.readline()
    else:
        body = await reader.readexactly(int(headers.get("content-length", "0")))
    return status, headers, body


def _name(error: BaseException) -> str:
    """Return one short name for a failure, fit for counting."""
    if isinstance(error, Answer):
        return str(error)
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, EOFError):
        return "connection closed without an answer"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno).lower()
    return type(error).__name__


async def carry_out(plan: Plan, log: TextIO) -> dict[str, Any]:
    """Run all clients until the plan ends or a signal comes, and return the summary."""
    over = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, over.set)
    began = time.monotonic()
    tally = Tally(log)
    clients = [asyncio.create_task(Client(plan, tally).run(number, over)) for number in range(plan.clients)]
    while not over.is_set() and not all(client.done() for client in clients):
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(over.wait(), 0.05)
        log.flush()
        if time.monotonic() - began > plan.seconds or (plan.until_file and plan.until_file.exists()):
            over.set()
    await asyncio.gather(*clients)
    return tally.summary(began)


def main(argv: list[str] | None = None) -> int:
    """Run the load as told on the command line; write the summary to --out; end with 1 when a request failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.real.load", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("url", help="where to send: http://ADDRESS:PORT/PATH of the GET requests")
    parser.add_argument("--host-header", help="the name to ask for; default: the address in the URL")
    parser.add_argument("--post-path", default="/echo", help="where POST goes; it must answer what was posted")
    parser.add_argument("--clients", type=int, default=40)
    parser.add_argument("--rate", type=float, default=600.0, help="requests per second altogether; 0: no limit")
    parser.add_argument("--seconds", type=float, default=MOST_SECONDS)
    parser.add_argument("--until-file", type=Path, help="end when this file exists")
    parser.add_argument("--most", type=int, default=MOST_REQUESTS, help="end after so many requests")
    parser.add_argument("--mark", default=MARK, help="pattern; its first group in a GET's body is counted")
    parser.add_argument("--log", type=Path, help="one JSON line per request; default: the summary's name + l")
    parser.add_argument("--out", type=Path, required=True, help="where to write the summary")
    told = parser.parse_args(argv)
    url = urlsplit(told.url)
    plan = Plan(
        host=url.hostname or "127.0.0.1",
        port=url.port or 80,
        host_header=told.host_header or url.netloc,
        get_path=(url.path or "/") + (f"?{url.query}" if url.query else ""),
        post_path=told.post_path,
        clients=told.clients,
        rate=told.rate,
        seconds=min(told.seconds, MOST_SECONDS),
        until_file=told.until_file,
        mark=told.mark,
        most=min(told.most, MOST_REQUESTS),
    )
    with (told.log or told.out.with_suffix(".jsonl")).open("w") as log:
        summary = asyncio.run(carry_out(plan, log))
    unfinished = told.out.with_suffix(".part")
    unfinished.write_text(json.dumps(summary, indent=2) + "\n")
    unfinished.replace(told.out)
    return 1 if summary["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
