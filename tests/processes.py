"""Real processes of keepflow for tests: a master on a free port with a home of its own, started, killed, and again."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.client import HTTPMessage
from pathlib import Path
from typing import Any

from tests.real.waiting import Hopeless, free_port, wait_until

SECRET = "a secret of the hook"
START_SECONDS = 30.0


@dataclass(frozen=True)
class Reply:
    """An HTTP answer."""

    status: int
    headers: HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class MasterProcess:
    """`keepflow master` as a process; `stop` and `kill` may be followed by another `start`."""

    home: Path
    port: int = field(default_factory=free_port)
    env: Mapping[str, str] = field(default_factory=dict)
    options: tuple[str, ...] = ()
    verb: str = "master"
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def log(self) -> str:
        """What it said on stderr, of all starts."""
        return self.log_path.read_text(errors="replace")

    @property
    def log_path(self) -> Path:
        return self.home.with_name(f"{self.home.name}.stderr")

    @property
    def admin_token(self) -> str:
        return (self.home / "admin.token").read_text().strip()

    def argv(self) -> list[str]:
        listen = ("--listen", f"127.0.0.1:{self.port}")
        return [sys.executable, "-m", "keepflow.cli.main", self.verb, "--home", str(self.home), *listen, *self.options]

    def start(self) -> MasterProcess:
        """Start it and return once it takes work."""
        self.start_only()
        wait_until(self._is_ready, START_SECONDS, f"the master on {self.home} is ready")
        return self

    def start_only(self) -> None:
        with self.log_path.open("ab") as log:
            env = {name: value for name, value in os.environ.items() if not name.startswith("KEEPFLOW_")}
            self.process = subprocess.Popen(
                self.argv(), env=env | dict(self.env), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def _is_ready(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise Hopeless(f"the master ended with {self.process.returncode}: {self.log[-3000:]}")
        return self.get("/readyz").status == 200

    def stop(self, seconds: float = 10.0) -> int:
        """Send SIGTERM and return the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)

    def kill(self) -> None:
        """Send SIGKILL and wait until nothing of it is left."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)

    def close(self) -> None:
        """End it, however."""
        if self.process is not None and self.process.poll() is None:
            self.kill()

    def rss(self) -> int:
        """Return its resident memory in bytes."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    # --- talking to it ---

    def ask(self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> Reply:
        """Send one request; every status is an answer."""
        address = self.url + path
        request = urllib.request.Request(address, data=body, headers=dict(headers or {}), method=method)  # noqa: S310 - http, ours
        try:
            with _opener.open(request, timeout=30) as answer:
                return Reply(answer.status, answer.headers, answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return Reply(error.code, error.headers, error.read())

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Reply:
        return self.ask("GET", path, headers=headers)

    def api(self, method: str, path: str, data: Any = None) -> Reply:
        """Ask the REST API as the admin of this machine."""
        headers = {"Authorization": f"Bearer {self.admin_token}", "Content-Type": "application/json"}
        return self.ask(method, f"/api/v1{path}", None if data is None else json.dumps(data).encode(), headers)

    def apply(self, projects: Mapping[str, Mapping[str, Any]], **more: Any) -> None:
        """Make these projects exist; each has at least a `repo`."""
        defaults = {"forge": "github", "flow_file": ".keepflow.yml", "hook_secret": SECRET}
        desired = {"projects": {name: {**defaults, **project} for name, project in projects.items()}, **more}
        reply = self.api("POST", "/apply", {"desired": desired, "dry_run": False})
        assert reply.status == 200, reply.body

    def connect(self) -> socket.socket:
        """Open a bare connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirects)


def sign(body: bytes, secret: str = SECRET) -> str:
    """Return what GitHub puts into X-Hub-Signature-256."""
    return f"sha256={hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()}"


def hook_headers(body: bytes, delivery: str, event: str = "push", secret: str = SECRET) -> dict[str, str]:
    """Return the headers of a webhook as GitHub sends it."""
    return {
        "Content-Type": "application/json",
        "User-Agent": "GitHub-Hookshot/0000000",
        "X-GitHub-Event": event,
        "X-GitHub-Delivery": delivery,
        "X-Hub-Signature-256": sign(body, secret),
    }


def push_body(ref: str = "refs/heads/dev", sha: str = "1" * 40, size: int = 0, **more: Any) -> bytes:
    """Return the body of a push; to reach `size` bytes it grows as GitHub's does: by addresses, then by file names."""
    person = {"name": "Ann", "email": "ann@example.org", "username": "ann"}
    head: dict[str, Any] = {
        "id": sha,
        "message": "Change something",
        "timestamp": "2026-01-01T00:00:00Z",
        "url": f"https://forge.example.org/example/app/commit/{sha}",
        "author": person,
        "committer": person,
        "added": [],
        "removed": [],
        "modified": ["src/app.py"],
    }
    repository: dict[str, Any] = {"id": 1, "name": "app", "full_name": "example/app", "private": True}
    data: dict[str, Any] = {
        "ref": ref,
        "before": "2" * 40,
        "after": sha,
        "forced": False,
        "deleted": False,
        "repository": repository,
        "pusher": {"name": "ann", "email": "ann@example.org"},
        "sender": {"login": "ann", "id": 7},
        "head_commit": head,
        "commits": [head],
        **more,
    }
    for number in range(90):
        if len(json.dumps(data)) < size:
            address = f"https://api.forge.example.org/repos/example/app/kind/{number}{{/id}}"
            repository[f"address_{number}_url"] = address
    missing = size - len(json.dumps(data))
    head["modified"] += [f"src/package/module_{number:08}.py" for number in range(max(0, missing // 68))]
    return json.dumps(data).encode()
