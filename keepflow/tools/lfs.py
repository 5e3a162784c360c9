"""Git LFS: pointer files, and how the bytes behind one are had from the server of a repository.

No `git-lfs` is run, and no `.lfsconfig` is read: a repository that says where its files are could have a credential
sent anywhere. The server is the one of the repository itself (`<address>.git/info/lfs`); where that says that the bytes
are elsewhere, they are fetched from there without the credential, and only over a public address.
"""

from __future__ import annotations

import base64
import http.client
import json
import re
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from keepflow import errors
from keepflow.core.text import one_line
from keepflow.tools import egress

POINTER_LIMIT = 1024  #: bytes; git-lfs looks at nothing larger
_POINTER = re.compile(
    rb"version https://git-lfs\.github\.com/spec/v1\n(?:ext-[^\n]*\n)*oid sha256:([0-9a-f]{64})\nsize ([0-9]{1,15})\n"
)
_KIND = "application/vnd.git-lfs+json"
_SECONDS = 60.0
_ANSWER = 1024 * 1024
_PIECE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Pointer:
    """What a pointer file says: the digest and the size of the bytes it stands for."""

    oid: str
    size: int

    @classmethod
    def parse(cls, data: bytes) -> Pointer | None:
        """Read a file of a repository; None when it is no pointer."""
        found = _POINTER.fullmatch(data) if len(data) < POINTER_LIMIT else None
        return cls(found[1].decode(), int(found[2])) if found else None


@dataclass(frozen=True, slots=True)
class _Server:
    tls: bool
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> _Server:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or not url.isprintable():
            raise errors.RemoteError("the LFS server names an address that is none of HTTP", code="no-lfs")
        tls = parts.scheme == "https"
        return cls(tls, parts.hostname, parts.port or (443 if tls else 80))


@contextmanager
def download(repo: str, token: str | None, pointer: Pointer) -> Iterator[Iterator[bytes]]:
    """Give the bytes of a file, piece by piece, unchecked; `repo` is an http(s) address, `token` may be a login.

    Raises RemoteError `no-lfs`, Undeliverable `egress`.
    """
    home = _Server.of(repo)
    login = _login(token)
    url, headers = _ask(home, repo, login, pointer)
    there = _Server.of(url)
    if home.tls and not there.tls:
        raise errors.RemoteError("the LFS server names an address without encryption", code="no-lfs")
    if there == home and login and "authorization" not in {name.lower() for name in headers}:
        headers = {**headers, "Authorization": login}
    parts = urlsplit(url)
    with _connected(there, private=there == home) as connection:
        path = urlunsplit(("", "", parts.path or "/", parts.query, ""))
        answer = _answer(connection, "GET", path, headers, None)
        yield iter(lambda: answer.read(_PIECE), b"")


def _ask(home: _Server, repo: str, login: str | None, pointer: Pointer) -> tuple[str, dict[str, str]]:
    """Ask the server of a repository where the bytes are, and with which headers to ask for them."""
    path = urlsplit(repo).path.rstrip("/")
    path = path if path.endswith(".git") else f"{path}.git"
    wanted = {"operation": "download", "transfers": ["basic"], "objects": [{"oid": pointer.oid, "size": pointer.size}]}
    headers = {"Accept": _KIND, "Content-Type": _KIND, **({"Authorization": login} if login else {})}
    with _connected(home, private=True) as connection:
        answer = _answer(connection, "POST", f"{path}/info/lfs/objects/batch", headers, json.dumps(wanted).encode())
        return _action(answer.read(_ANSWER), pointer)


def _action(body: bytes, pointer: Pointer) -> tuple[str, dict[str, str]]:
    try:
        [found] = json.loads(body)["objects"]
        if error := found.get("error"):
            said = one_line(str(error.get("message", "")), 200)
            raise errors.RemoteError(f"the LFS server has no {pointer.oid[:12]}: {said}", code="no-lfs")
        action = found["actions"]["download"]
        return str(action["href"]), {str(name): str(value) for name, value in (action.get("header") or {}).items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise errors.RemoteError(f"the LFS server does not say where {pointer.oid[:12]} is", code="no-lfs") from None


@contextmanager
def _connected(server: _Server, *, private: bool) -> Iterator[http.client.HTTPConnection]:
    plain = egress.connect(server.host, server.port, private=private, timeout=_SECONDS)
    connection = http.client.HTTPConnection(server.host, server.port, timeout=_SECONDS)
    try:
        if server.tls:
            context = ssl.create_default_context()
            connection.sock = context.wrap_socket(plain, server_hostname=server.host)
        else:
            connection.sock = plain
        yield connection
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise errors.RemoteError(f"the LFS server {server.host}: {one_line(str(error), 200)}", code="no-lfs") from None
    finally:
        connection.close()
        plain.close()


def _answer(
    connection: http.client.HTTPConnection, method: str, path: str, headers: Mapping[str, Any], body: bytes | None
) -> http.client.HTTPResponse:
    connection.request(method, path, body, dict(headers))
    answer = connection.getresponse()
    if answer.status != http.client.OK:  # a redirect would take the credential along
        raise errors.RemoteError(f"the LFS server {connection.host} answers {answer.status}", code="no-lfs")
    return answer


def _login(token: str | None) -> str | None:
    if not token:
        return None
    login = token if ":" in token else f"x-access-token:{token}"
    return f"Basic {base64.b64encode(login.encode()).decode()}"
