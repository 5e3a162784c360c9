"""The client for Git LFS against a server that says what the test wants (R13)."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from keepflow import errors
from keepflow.tools.lfs import Pointer, download

DATA = b"large" * 1000
POINTER = Pointer(hashlib.sha256(DATA).hexdigest(), len(DATA))


class Server:
    """An LFS server; `objects` is what it answers to a batch, `seen` every request with its Authorization."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, str | None]] = []
        self.objects: Any = None
        self.status = 200
        server = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                pass

            def do_POST(self) -> None:
                wanted = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                assert wanted["operation"] == "download"
                self.reply(json.dumps({"transfer": "basic", "objects": server.objects}).encode())

            def do_GET(self) -> None:
                self.reply(DATA)

            def reply(self, body: bytes) -> None:
                server.seen.append((self.command, self.path, self.headers.get("Authorization")))
                self.send_response(server.status)
                self.send_header("Location", "http://127.0.0.1:1/")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.01,))
        self.thread.start()

    def says(self, href: str, **header: str) -> None:
        self.objects = [{"oid": POINTER.oid, "actions": {"download": {"href": href, "header": header}}}]

    def close(self) -> None:
        self.http.shutdown()
        self.thread.join()
        self.http.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


@pytest.fixture
def elsewhere() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


def got(repo: str) -> bytes:
    with download(repo, "secret", POINTER) as pieces:
        return b"".join(pieces)


def test_r13_the_bytes_come_from_where_the_server_says(server: Server) -> None:
    server.says(f"{server.url}/objects/1?x=y", Authorization="Bearer lent")
    assert got(f"{server.url}/team/app") == DATA
    login = "Basic eC1hY2Nlc3MtdG9rZW46c2VjcmV0"
    assert server.seen == [
        ("POST", "/team/app.git/info/lfs/objects/batch", login),
        ("GET", "/objects/1?x=y", "Bearer lent"),
    ]
    server.seen.clear()
    server.says(f"{server.url}/objects/1")
    assert got(f"{server.url}/team/app.git") == DATA
    assert [authorization for _, _, authorization in server.seen] == [login, login]


def test_t28_another_address_of_a_private_network_is_never_asked(server: Server, elsewhere: Server) -> None:
    for href in (
        f"{elsewhere.url}/x",
        "http://169.254.169.254/latest/meta-data",
        "http://localhost:1/",
        "http://[::1]/",
    ):
        server.says(href)
        with pytest.raises(errors.KeepflowError):
            got(f"{server.url}/app")
    assert elsewhere.seen == []


@pytest.mark.parametrize(
    "href", ["file:///etc/passwd", "ext::x", "", "https://", "http://a b/", "http://u:p@127.0.0.1/"]
)
def test_an_address_that_is_none_of_http_is_refused(server: Server, href: str) -> None:
    server.says(href)
    with pytest.raises(errors.KeepflowError):
        got(f"{server.url}/app")


@pytest.mark.parametrize(
    "objects",
    [None, [], {}, [{}], [{"actions": {}}], [{"actions": {"download": {}}}], [1], [{"error": {"code": 404}}], "x"],
)
def test_answers_that_make_no_sense_are_errors_with_a_code(server: Server, objects: Any) -> None:
    server.objects = objects
    with pytest.raises(errors.RemoteError) as caught:
        got(f"{server.url}/app")
    assert caught.value.code == "no-lfs"


def test_cve_2020_5260_no_redirect_and_no_line_end_takes_a_credential_along(server: Server) -> None:
    server.says(f"{server.url}/x", **{"X": "a\r\nAuthorization: b"})
    with pytest.raises(errors.RemoteError):
        got(f"{server.url}/app")
    server.status = 302
    with pytest.raises(errors.RemoteError, match="answers 302"):
        got(f"{server.url}/app")


@pytest.mark.parametrize(
    ("data", "is_one"),
    [
        (f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 12\n", True),
        (
            f"version https://git-lfs.github.com/spec/v1\next-0-x sha256:{'b' * 64}\noid sha256:{'a' * 64}\nsize 1\n",
            True,
        ),
        (f"version https://git-lfs.github.com/spec/v1\noid sha256:{'A' * 64}\nsize 12\n", False),
        (f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize -1\n", False),
        (f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 12\nmore\n", False),
        (f"oid sha256:{'a' * 64}\nsize 12\n", False),
        ("", False),
    ],
)
def test_a_pointer_is_read_exactly(data: str, is_one: bool) -> None:
    assert (Pointer.parse(data.encode()) is not None) == is_one
