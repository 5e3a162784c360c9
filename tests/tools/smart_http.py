"""A git server over smart HTTP that writes down what it was sent; it serves what `upload_pack_argv` says."""

from __future__ import annotations

import gzip
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from keepflow.tools.git import upload_pack_argv


@dataclass
class GitServer:
    """`expects` is the Authorization header demanded; `redirect_to` answers everything with a redirect."""

    repository: Path
    url: str = ""
    expects: str | None = None
    redirect_to: str | None = None
    authorizations: list[str | None] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    fetched_bytes: int = 0


@contextmanager
def serve(
    repository: Path, expects: str | None = None, redirect_to: str | None = None, port: int = 0
) -> Iterator[GitServer]:
    """Serve one repository on loopback, on a free port when none is named."""
    state = GitServer(repository, expects=expects, redirect_to=redirect_to)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            self.answer(True, "application/x-git-upload-pack-advertisement", b"")

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            self.answer(False, "application/x-git-upload-pack-result", body)

        def answer(self, advertise: bool, kind: str, body: bytes) -> None:
            state.requests.append(f"{self.command} {self.path}")
            state.authorizations.append(self.headers.get("Authorization"))
            if state.redirect_to:
                return self.reply(302, {"Location": state.redirect_to + self.path}, b"")
            if state.expects and self.headers.get("Authorization") != state.expects:
                return self.reply(401, {"WWW-Authenticate": "Basic realm=x"}, b"")
            argv, env = upload_pack_argv(state.repository, advertise)
            if self.headers.get("Git-Protocol") == "version=2":
                env["GIT_PROTOCOL"] = "version=2"
            done = subprocess.run(argv, env=env, input=body, stdout=subprocess.PIPE, timeout=60, check=False)
            if advertise and "GIT_PROTOCOL" not in env:
                done.stdout = b"001e# service=git-upload-pack\n0000" + done.stdout
            state.fetched_bytes += len(done.stdout)
            return self.reply(200, {"Content-Type": kind}, done.stdout)

        def reply(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}/repo.git"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
