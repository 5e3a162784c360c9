"""A registry and a token service on one loopback port that write down every request with its Authorization header."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = tuple[int, dict[str, str], bytes]

MANIFEST = json.dumps({"schemaVersion": 2, "config": {"digest": "sha256:" + "c" * 64}}).encode()
DIGEST = f"sha256:{hashlib.sha256(MANIFEST).hexdigest()}"
OCI = "application/vnd.oci.image.manifest.v1+json"


@dataclass
class Seen:
    method: str
    path: str
    headers: dict[str, str]

    @property
    def authorization(self) -> str | None:
        return self.headers.get("authorization")


@dataclass
class FakeRegistry:
    """`answer` decides; by default the manifest above is `app:1`, and nobody needs a login."""

    address: str = ""
    seen: list[Seen] = field(default_factory=list)
    answer: Callable[[Seen], Answer] = field(default=lambda request: holds_app(request))

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    @property
    def logins(self) -> list[str]:
        return [request.authorization for request in self.seen if request.authorization]


def holds_app(request: Seen) -> Answer:
    """Answer as a registry that holds `app:1`, and gives schema 1 to whoever does not send the full Accept list."""
    if request.path == "/v2/":
        return 200, {}, b"{}"
    if request.path in ("/v2/app/manifests/1", f"/v2/app/manifests/{DIGEST}"):
        if request.headers.get("accept", "").count("application/vnd.") != 4:
            return 200, {"Docker-Content-Digest": "sha256:" + "1" * 64}, b"converted"
        return 200, {"Docker-Content-Digest": DIGEST, "Content-Type": OCI}, MANIFEST
    return 404, {}, b'{"errors":[{"code":"MANIFEST_UNKNOWN"}]}'


def needs(authorization: str, challenge: str) -> Callable[[Seen], Answer]:
    """Answer only who proves it with exactly this header."""

    def answer(request: Seen) -> Answer:
        if request.authorization != authorization:
            return 401, {"WWW-Authenticate": challenge}, b"{}"
        return holds_app(request)

    return answer


@contextmanager
def fake_registry(host: str = "127.0.0.1") -> Iterator[FakeRegistry]:
    """Run a fake registry on a free port."""
    state = FakeRegistry()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            request = Seen(self.command, self.path, headers)
            state.seen.append(request)
            status, fields, body = state.answer(request)
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **fields}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_HEAD = do_POST = do_DELETE = do_GET

    server = ThreadingHTTPServer((host, 0), Handler)
    server.daemon_threads = True  # a kept-alive connection must not hold the end of a test
    server.block_on_close = False
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients break off on purpose
    state.address = f"{host}:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
