"""Forges' own APIs for webhooks on loopback, as GitHub, GitLab and Gitea document them: rights, pages, secrets, no.

Each keeps what it was given and shows what it would show; a secret it shows nobody, and Gitea's PATCH leaves it alone.
"""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

TOKEN = "a-token-nobody-may-see"
#: How each is shown the token, and where the hooks of `team/keepwork` are.
_AUTH = {
    "github": ("Authorization", f"Bearer {TOKEN}"),
    "gitea": ("Authorization", f"token {TOKEN}"),
    "gitlab": ("PRIVATE-TOKEN", TOKEN),
}
_PATH = {
    "github": "/api/repos/team/keepwork/hooks",
    "gitea": "/api/repos/team/keepwork/hooks",
    "gitlab": "/api/projects/team%2Fkeepwork/hooks",
}
_PAGE = {"github": "per_page", "gitea": "limit", "gitlab": "per_page"}


class ServedForge:
    """One repository at a forge of one kind. `refuse` answers the next calls: (status, body)."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.hooks: dict[int, dict[str, Any]] = {}
        self.secrets: dict[int, str] = {}
        self.calls: list[tuple[str, str]] = []
        self.refuse: list[tuple[int, Any]] = []
        self.headers: list[dict[str, str]] = []
        self._ids = itertools.count(11)
        self.api = ""
        self.pulls: dict[int, dict[str, Any]] = {}  #: pull requests by number, as the API shows them

    def add(self, body: dict[str, Any]) -> int:
        """Make a hook, as a person or the API does."""
        number = next(self._ids)
        self._write(number, {}, body)
        return number

    def delete_by_hand(self) -> None:
        """A person removes everything."""
        self.hooks.clear()

    def urls(self) -> list[str]:
        """Where its hooks tell."""
        return [str(hook["url"] if self.kind == "gitlab" else hook["config"]["url"]) for hook in self.hooks.values()]

    def answer(self, method: str, target: str, headers: dict[str, str], body: Any) -> tuple[int, Any]:
        """Answer one call."""
        parts = urlsplit(target)
        self.calls.append((method, target))
        if self.refuse:
            return self.refuse.pop(0)
        name, value = _AUTH[self.kind]
        if headers.get(name.lower()) != value:
            return 401, {"message": "Bad credentials" if self.kind == "github" else "401 Unauthorized"}
        base = _PATH[self.kind]
        where, _, last = parts.path.rpartition("/")
        if where == base.replace("hooks", "merge_requests" if self.kind == "gitlab" else "pulls"):
            found = self.pulls.get(int(last))
            return (200, found) if found and method == "GET" else (404, {"message": "Not Found"})
        if parts.path == base:
            return self._listed(parts.query) if method == "GET" else self._made(method, body)
        number = parts.path.removeprefix(f"{base}/")
        if not parts.path.startswith(f"{base}/") or not number.isdigit() or int(number) not in self.hooks:
            return 404, {"message": "Not Found"}
        return self._one(method, int(number), body)

    def _listed(self, query: str) -> tuple[int, Any]:
        given = {key: int(values[0]) for key, values in parse_qs(query).items()}
        size, page = given.get(_PAGE[self.kind], 20), given.get("page", 1)
        return 200, list(self.hooks.values())[(page - 1) * size : page * size]

    def _made(self, method: str, body: Any) -> tuple[int, Any]:
        if method != "POST":
            return 405, None
        url = body["url"] if self.kind == "gitlab" else body["config"]["url"]
        if self.kind == "github" and url in self.urls():
            errors = [{"resource": "Hook", "code": "custom", "message": "Hook already exists on this repository"}]
            return 422, {"message": "Validation Failed", "errors": errors}
        if self.kind == "gitea" and (body["type"] != "gitea" or body["config"]["content_type"] not in ("json", "form")):
            return 422, {"message": "Invalid hook type"}
        return 201, self.hooks[self.add(body)]

    def _one(self, method: str, number: int, body: Any) -> tuple[int, Any]:
        if method == "DELETE":
            del self.hooks[number]
            return 204, None
        if method != ("PUT" if self.kind == "gitlab" else "PATCH"):
            return 405, None
        self._write(number, self.hooks[number], body)
        return 200, self.hooks[number]

    def _write(self, number: int, before: dict[str, Any], body: dict[str, Any]) -> None:
        shown = {**before, **body, "id": number}
        if self.kind == "gitlab":
            given = shown.pop("token", None)
            shown.setdefault("alert_status", "executable")
        else:
            given = shown["config"].get("secret")
            hidden = {"secret": "********"} if self.kind == "github" else {}
            kept = {key: value for key, value in shown["config"].items() if key != "secret"}
            shown["config"] = {**kept, **hidden}
        self.hooks[number] = shown
        if given is not None and not (self.kind == "gitea" and before):
            self.secrets[number] = given


@contextmanager
def served_forge(kind: str) -> Iterator[ServedForge]:
    """Serve one on a free port of loopback."""
    forge = ServedForge(kind)

    class Handler(BaseHTTPRequestHandler):
        def _do(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            raw = self.rfile.read(length)
            headers = {name.lower(): value for name, value in self.headers.items()}
            forge.headers.append(headers)
            status, answer = forge.answer(self.command, self.path, headers, json.loads(raw) if raw else None)
            text = b"" if answer is None else json.dumps(answer).encode()
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("Location", "http://169.254.169.254/")
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _do

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    forge.api = f"http://127.0.0.1:{server.server_port}/api"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield forge
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
