"""One GET with one deadline over everything: connecting, TLS, waiting and reading.

Made for health checks and probes: it follows no redirect, uses no proxy, keeps no connection, and a server that drips
its answer byte by byte cannot hold it longer than the deadline.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from keepflow.tools.brake import stoppable

_BODY_LIMIT = 64 * 1024  #: bytes of body that are read


class NoAnswer(Exception):
    """Nobody answered, or not with HTTP, or not in time; the text says which."""


@dataclass(frozen=True, slots=True)
class Response:
    """An answer: header names in lower case, the first 64 KiB of the body."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


def get(
    host: str,
    port: int,
    path: str,
    headers: Mapping[str, str],
    *,
    timeout: float,
    connect: float = 1.0,
    tls_name: str | None = None,
) -> Response:
    """Ask `http://host:port/path` (https when `tls_name` is given, certificate unchecked: this asks one's own machine).

    `timeout` in seconds is for all of it, of which connecting gets at most `connect`. Raises NoAnswer, and Stopped by a
    brake.
    """
    deadline = time.monotonic() + timeout
    try:
        with socket.create_connection((host, port), timeout=min(timeout, connect)) as plain:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with stoppable(partial(_hang_up, plain)):
                return _exchange(plain, deadline, path, headers, tls_name)
    except TimeoutError:
        raise NoAnswer(f"no answer from {host}:{port} within {timeout:g} s") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise NoAnswer(f"{host}:{port}: {_words(error)}") from None


def _hang_up(plain: socket.socket) -> None:
    """End a conversation from another thread."""
    with contextlib.suppress(OSError):  # the other end was quicker
        plain.shutdown(socket.SHUT_RDWR)


def split_listen(listen: str) -> tuple[str, int]:
    """Return host and port to connect to for a listen address: `80`, `127.0.0.1:8900`, `0.0.0.0:80` or `[::]:80`."""
    host, _, port = listen.rpartition(":")
    host = host.strip("[]")
    return {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), int(port)  # noqa: S104  # not a bind


def _exchange(
    plain: socket.socket, deadline: float, path: str, headers: Mapping[str, str], tls_name: str | None
) -> Response:
    stream = _with_tls(plain, deadline, tls_name) if tls_name else plain
    try:
        lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "Connection: close"]
        return converse(stream, "\r\n".join([*lines, "", ""]).encode("latin-1"), deadline)
    finally:
        if stream is not plain:
            stream.close()


def converse(stream: socket.socket, request: bytes, deadline: float) -> Response:
    """Send a request and read its answer until a monotonic deadline; raises OSError, HTTPException, ValueError."""
    stream.settimeout(_left(deadline))
    stream.sendall(request)
    answer = http.client.HTTPResponse(_Reader(stream, deadline))  # type: ignore[arg-type]  # it only calls makefile
    with answer:
        answer.begin()
        body = answer.read(_BODY_LIMIT)
        if answer.length and len(body) < _BODY_LIMIT:  # `read` with a limit does not mind a body that breaks off
            raise http.client.IncompleteRead(body, answer.length)
    return Response(answer.status, {name.lower(): value for name, value in answer.getheaders()}, body)


def _with_tls(plain: socket.socket, deadline: float, name: str) -> socket.socket:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # the default context would read every authority's certificate
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    plain.settimeout(_left(deadline))
    return context.wrap_socket(plain, server_hostname=name)


class _Reader(io.RawIOBase):
    """The reading end of a socket on which every read gets only the time that is left."""

    def __init__(self, stream: socket.socket, deadline: float) -> None:
        self._stream = stream
        self._deadline = deadline

    def readable(self) -> bool:
        """It is for reading only."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read what is there, or wait for it until the deadline."""
        self._stream.settimeout(_left(self._deadline))
        return self._stream.recv_into(buffer)

    def makefile(self, _mode: str) -> io.BufferedReader:
        """Stand in for the socket, of which `http.client` wants nothing else."""
        return io.BufferedReader(self)


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _words(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error) or type(error).__name__
