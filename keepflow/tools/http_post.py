"""One request with JSON to an address that somebody typed, with one deadline over everything.

It follows no redirect, uses no proxy, keeps no connection, and connects only where `egress` lets it.
"""

from __future__ import annotations

import http.client
import re
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from keepflow.errors import RemoteError
from keepflow.tools import egress
from keepflow.tools.http_get import Response, converse

_HOST = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?|[0-9a-f:.]{2,45}")
_PATH = re.compile(r"/[A-Za-z0-9._~!$&'()*+,;=:@%/?-]*")


@dataclass(frozen=True, slots=True)
class Place:
    """Where to send. The path is often a secret, so it is not shown."""

    host: str
    port: int
    path: str = field(repr=False)
    tls: bool

    @classmethod
    def parse(cls, url: str) -> Place:
        """Read `http://host/path` or `https://host:port/path`; raises ValueError with a sentence, never the address."""
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
        except ValueError:
            raise ValueError("must be an address like https://hooks.example.org/path") from None
        if parts.scheme not in ("http", "https"):
            raise ValueError("must begin with https:// or http://")
        if "@" in parts.netloc:
            raise ValueError("must not hold a user or password")
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        if not _HOST.fullmatch(host) or not _PATH.fullmatch(path) or parts.fragment:
            raise ValueError("must be an address like https://hooks.example.org/path, of plain characters")
        tls = parts.scheme == "https"
        return cls(host, port or (443 if tls else 80), path, tls)

    @property
    def authority(self) -> str:
        """What the Host header says."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"


def post(
    place: Place, body: bytes, headers: Mapping[str, str], *, timeout: float, private: bool = False, ca_pem: str = ""
) -> Response:
    """Send JSON and return the answer, whatever its status; raises RemoteError and Undeliverable `egress`."""
    return ask("POST", place, body, headers, timeout=timeout, private=private, ca_pem=ca_pem)


def ask(
    method: str,
    place: Place,
    body: bytes,
    headers: Mapping[str, str],
    *,
    timeout: float,
    private: bool = False,
    ca_pem: str = "",
) -> Response:
    """Do what `post` does, with any method."""
    deadline = time.monotonic() + timeout
    lines = [f"{method} {place.path} HTTP/1.1", f"Host: {place.authority}", "Content-Type: application/json"]
    lines += [f"Content-Length: {len(body)}", "Connection: close", "User-Agent: keepflow"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    request = "\r\n".join([*lines, "", ""]).encode("latin-1") + body
    with egress.connect(place.host, place.port, private=private, timeout=timeout) as plain:
        try:
            if not place.tls:
                return converse(plain, request, deadline)
            plain.settimeout(max(0.1, deadline - time.monotonic()))
            context = ssl.create_default_context(cadata=ca_pem or None)
            with context.wrap_socket(plain, server_hostname=place.host) as stream:
                return converse(stream, request, deadline)
        except TimeoutError:
            raise RemoteError(f"no answer from {place.host} within {timeout:g} s") from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            said = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise RemoteError(f"{place.host}: {said}") from None
