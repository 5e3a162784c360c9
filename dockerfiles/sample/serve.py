"""The sample application: a small web server over the files of www/, made to show what a deploy does.

GET  /          the page, with the marker of www/marker.txt and the version in it
GET  /version   commit, build number and environment as JSON
GET  /healthz   200 when it serves
GET  /slow?ms=N an answer that takes N milliseconds (at most 30000)
POST /echo      the posted bytes

Only the standard library, one process. On SIGTERM it stops listening, finishes what it has begun, and ends.
"""

import asyncio
import gzip
import html
import json
import os
import signal
import sys
import time
from pathlib import Path

TYPES = {".html": "text/html; charset=utf-8", ".css": "text/css", ".js": "text/javascript", ".json": "application/json"}
MOST_BODY = 1 << 20
REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 413: "Content Too Large"}


class Site:
    """What is served, read once at the start: the same container always answers the same."""

    def __init__(self, root: Path, environment: str) -> None:
        lines = (root / "build-info").read_text().split() if (root / "build-info").exists() else []
        info = dict(line.split("=", 1) for line in lines)
        self.version = {
            "commit": info.get("commit", "unknown"),
            "build": info.get("build", "0"),
            "environment": environment,
        }
        self.files: dict[str, tuple[str, bytes, bytes | None]] = {}
        for path in sorted(root.rglob("*")):
            if path.is_file() and path.suffix in TYPES:
                packed = path.with_name(path.name + ".gz")
                body, squeezed = path.read_bytes(), packed.read_bytes() if packed.exists() else None
                self.files["/" + path.relative_to(root).as_posix()] = (TYPES[path.suffix], body, squeezed)
        marker = (root / "marker.txt").read_text().strip() if (root / "marker.txt").exists() else ""
        self._fill_page(marker)

    def _fill_page(self, marker: str) -> None:
        """Write marker and version into the page; it is packed again, as its text has changed."""
        kind, page, packed = self.files.get("/index.html", (TYPES[".html"], b"<p>marker: {marker}</p>", None))
        text = page.decode()
        for name, value in {"marker": marker, **self.version}.items():
            text = text.replace("{" + name + "}", html.escape(value))
        self.files["/"] = (kind, text.encode(), gzip.compress(text.encode(), mtime=0) if packed else None)

    def answer(self, method: str, path: str, accepts_gzip: bool, body: bytes) -> tuple[int, str, bytes, bool]:
        """Return status, content type, body, and whether the body is packed."""
        if path == "/echo":
            if method == "POST":
                return 200, "application/octet-stream", body, False
            return 405, "text/plain", b"", False
        if method not in ("GET", "HEAD"):
            return 405, "text/plain", b"", False
        if path == "/version":
            return 200, "application/json", json.dumps(self.version).encode() + b"\n", False
        if path in ("/healthz", "/slow"):
            return 200, "text/plain", b"ok\n", False
        if path not in self.files:
            return 404, "text/plain", b"not found\n", False
        kind, plain, packed = self.files[path]
        return (200, kind, packed, True) if packed and accepts_gzip else (200, kind, plain, False)


class Connection(asyncio.Protocol):
    """One keep-alive connection: requests are answered one after the other."""

    def __init__(self, site: Site, everyone: "set[Connection]") -> None:
        self.site = site
        self.everyone = everyone
        self.buffer = b""
        self.busy = False
        self.leaving = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.everyone.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        self.everyone.discard(self)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        self.serve_next()

    def leave(self) -> None:
        """End the connection: at once when it is idle, after the present answer when not."""
        self.leaving = True
        if not self.busy:
            self.transport.close()

    def serve_next(self) -> None:
        """Answer the requests that have arrived completely."""
        while not self.busy and b"\r\n\r\n" in self.buffer and not self.transport.is_closing():
            head, rest = self.buffer.split(b"\r\n\r\n", 1)
            first, *lines = head.decode("latin-1").split("\r\n")
            fields = (line.partition(":") for line in lines)
            headers = {name.strip().lower(): value.strip() for name, _, value in fields}
            words, length = first.split(), headers.get("content-length", "0")
            if len(words) != 3 or not length.isascii() or not length.isdigit() or "transfer-encoding" in headers:
                self.refuse(400)
                return
            if int(length) > MOST_BODY:
                self.refuse(413)
                return
            if len(rest) < int(length):
                return
            self.buffer = rest[int(length) :]
            method, target, protocol = words
            keep = headers.get("connection", "").lower() != "close" and protocol != "HTTP/1.0"
            self.begin(method, target, keep, "gzip" in headers.get("accept-encoding", ""), rest[: int(length)])

    def begin(self, method: str, target: str, keep: bool, accepts_gzip: bool, body: bytes) -> None:
        """Answer one request, now or, for /slow, later."""
        path, _, query = target.partition("?")
        status, kind, answer, packed = self.site.answer(method, path, accepts_gzip, body)
        head = f"HTTP/1.1 {status} {REASONS[status]}\r\nContent-Type: {kind}\r\nContent-Length: {len(answer)}\r\n"
        head += f"X-Build: {self.site.version['build']}\r\nCache-Control: no-cache\r\n"
        head += "Content-Encoding: gzip\r\nVary: Accept-Encoding\r\n" if packed else ""
        self.busy = True
        answer = b"" if method == "HEAD" else answer
        asked = query.removeprefix("ms=") if path == "/slow" else "0"
        delay = min(int(asked), 30_000) / 1000 if asked.isascii() and asked.isdigit() else 0
        if delay:
            asyncio.get_running_loop().call_later(delay, self.end, head, answer, keep)
        else:
            self.end(head, answer, keep)

    def end(self, head: str, answer: bytes, keep: bool) -> None:
        """Write an answer and go on with the next request, or close."""
        keep = keep and not self.leaving
        self.transport.write(f"{head}Connection: {'keep-alive' if keep else 'close'}\r\n\r\n".encode() + answer)
        self.busy = False
        if keep:
            self.serve_next()
        else:
            self.transport.close()

    def refuse(self, status: int) -> None:
        """Answer what cannot be understood, and close."""
        self.end(f"HTTP/1.1 {status} {REASONS[status]}\r\nContent-Length: 0\r\n", b"", keep=False)


def note(log: Path, line: str) -> None:
    """Append a line to the log volume, when there is one."""
    if log.parent.is_dir() and os.access(log.parent, os.W_OK):
        with log.open("a") as file:
            file.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} {line}\n")


async def main(environment: str) -> None:
    site = Site(Path(__file__).parent / "www", environment)
    everyone: set[Connection] = set()
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGINT, stop.set)
    port = int(os.environ.get("PORT", "8080"))
    server = await loop.create_server(lambda: Connection(site, everyone), "0.0.0.0", port, backlog=1024)
    log = Path(__file__).parent / "log" / f"{environment}.log"
    note(log, f"start build {site.version['build']} commit {site.version['commit']}")
    await stop.wait()
    server.close()
    for connection in list(everyone):
        connection.leave()
    while everyone:
        await asyncio.sleep(0.01)
    note(log, f"stop build {site.version['build']}")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "dev"))
