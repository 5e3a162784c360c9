"""A load of signed webhooks over keep-alive connections: how many a second, and how long each took.

`python -m tests.bench.hook_load URL --secret … [--connections 16] [--seconds 5] [--size 10240]` prints one JSON line.
Every delivery has an id of its own; bodies are signed before the clock starts, so that the client costs little.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
import uuid
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from tests.processes import push_body, sign

_BODIES = 64


@dataclass
class Result:
    """Counts by status, times in seconds, and the ids that were acknowledged with 202."""

    statuses: dict[int, int] = field(default_factory=dict)
    times: list[float] = field(default_factory=list)
    acknowledged: list[str] = field(default_factory=list)
    errors: int = 0
    seconds: float = 0.0

    def summary(self) -> dict[str, object]:
        times = sorted(self.times)
        return {
            "per_second": round(len(times) / self.seconds, 1),
            "sent": len(times),
            "statuses": self.statuses,
            "errors": self.errors,
            "p50_ms": round(times[len(times) // 2] * 1000, 2) if times else None,
            "p99_ms": round(times[int(len(times) * 0.99)] * 1000, 2) if times else None,
            "max_ms": round(times[-1] * 1000, 2) if times else None,
        }


class _Sender(asyncio.Protocol):
    """One keep-alive connection: sends the next request as soon as the answer to the last one is here."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._buffer = b""
        self._sent_at = 0.0
        self._delivery = ""
        self.closed = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._next()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, rest = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return
        length = 0
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line[15:])
        if len(rest) < length:
            return
        self._buffer = rest[length:]
        self._load.note(int(head[9:12]), time.perf_counter() - self._sent_at, self._delivery)
        self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        if time.perf_counter() < self._load.until:
            self._load.result.errors += 1
        if not self.closed.done():
            self.closed.set_result(None)

    def _next(self) -> None:
        self._sent_at = time.perf_counter()
        if self._sent_at >= self._load.until:
            self._transport.close()
            return
        self._delivery = f"{self._load.run}-{self._load.count:08x}"
        self._load.count += 1
        head, body = self._load.requests[self._load.count % len(self._load.requests)]
        self._transport.write(head.replace(b"@@", self._delivery.encode()) + body)


class Load:
    """Sends until the time is over."""

    def __init__(self, url: str, secret: str, size: int) -> None:
        parts = urlsplit(url)
        self.host, self.port = parts.hostname or "", parts.port or 80
        self.result = Result()
        self.until = 0.0
        self.count = 0
        self.run = uuid.uuid4().hex[:8]
        self.requests = [self._request(parts.path, secret, size, number) for number in range(_BODIES)]

    def _request(self, path: str, secret: str, size: int, number: int) -> tuple[bytes, bytes]:
        body = push_body(sha=f"{number + 1:040x}", size=size)
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {self.host}:{self.port}\r\nContent-Type: application/json\r\n"
            f"User-Agent: GitHub-Hookshot/0000000\r\nX-GitHub-Event: push\r\nX-GitHub-Delivery: @@\r\n"
            f"X-Hub-Signature-256: {sign(body, secret)}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode(), body

    def note(self, status: int, seconds: float, delivery: str) -> None:
        self.result.statuses[status] = self.result.statuses.get(status, 0) + 1
        self.result.times.append(seconds)
        if status == 202:
            self.result.acknowledged.append(delivery)

    async def send(self, connections: int, seconds: float) -> Result:
        """Send over this many connections at once, for this long."""
        loop = asyncio.get_running_loop()
        begun = time.perf_counter()
        self.until = begun + seconds
        opened = [await loop.create_connection(lambda: _Sender(self), self.host, self.port) for _ in range(connections)]
        await asyncio.gather(*(sender.closed for _, sender in opened))
        self.result.seconds = time.perf_counter() - begun
        return self.result


def run(url: str, secret: str, connections: int, seconds: float, size: int = 10 * 1024) -> Result:
    """Send a load from this process; uses uvloop when it is there."""
    try:
        import uvloop

        factory = uvloop.new_event_loop
    except ImportError:
        factory = asyncio.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(Load(url, secret, size).send(connections, seconds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--secret", default=os.environ.get("HOOK_SECRET", ""))
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--size", type=int, default=10 * 1024)
    chosen = parser.parse_args()
    result = run(chosen.url, chosen.secret, chosen.connections, chosen.seconds, chosen.size)
    print(json.dumps({"connections": chosen.connections, "size": chosen.size, **result.summary()}))


if __name__ == "__main__":
    main()
