"""The command line's side of the REST API: which server, with which token, and what its errors mean here."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import quote

import click
import requests

from keepflow import __version__, errors
from keepflow.cli.places import Server, find_server

_TIMEOUT = (3, 30)  # seconds to connect, seconds of silence
_STREAM_SILENCE = 60  # seconds; the server sends a heartbeat every 15
_KINDS: dict[int, type[errors.KeepflowError]] = {
    401: errors.AuthError,
    403: errors.Denied,
    404: errors.NotFound,
    409: errors.Refused,
    413: errors.TooLarge,
    429: errors.Unavailable,
    503: errors.Unavailable,
}


class StreamEvent(NamedTuple):
    """One server-sent event; `data` is its JSON."""

    name: str
    id: str
    data: dict[str, Any]


@dataclass
class Client:
    """Speaks with one master. Every error of the server becomes the error class it was there."""

    server: Server

    def __post_init__(self) -> None:
        self._session = requests.Session()
        self._session.trust_env = self.server.local is False  # no proxy between us and our own machine
        self._session.headers.update(
            {
                "Accept": "application/json",
                "Authorization": f"Bearer {self.server.token}",
                "User-Agent": f"keepflow/{__version__}",
            }
        )
        if self.server.ca_file:
            self._session.verify = self.server.ca_file

    def get(self, path: str, **params: Any) -> dict[str, Any]:
        """Read JSON below `/api/v1`; parameters that are None are left out."""
        return self._json("GET", path, params=params)

    def post(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Send JSON below `/api/v1` and return the answer; never repeated by itself."""
        return self._json("POST", path, json=body)

    def put(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Replace something below `/api/v1`."""
        return self._json("PUT", path, json=body)

    def delete(self, path: str) -> dict[str, Any]:
        """Remove something below `/api/v1`."""
        return self._json("DELETE", path)

    def text(self, path: str, **params: Any) -> Iterator[bytes]:
        """Read plain text below `/api/v1`, piece by piece."""
        with self._send("GET", f"/api/v1{path}", params=params, stream=True) as answer:
            yield from answer.iter_content(64 * 1024)

    def download(self, path: str) -> Iterator[bytes]:
        """Read bytes below `/api/v1`, piece by piece; the master may take minutes before the first one."""
        with self._send("GET", f"/api/v1{path}", stream=True, timeout=(3, 900)) as answer:
            try:
                yield from answer.iter_content(64 * 1024)
            except requests.RequestException as error:
                raise errors.Unavailable(f"{self.server.url} broke off: {_plainly(error)}", code="broken-off") from None

    def events(self, path: str, last_id: str = "") -> Iterator[StreamEvent]:
        """Read one connection's worth of a stream of the server; the caller connects again, with the last id."""
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last_id} if last_id else {})
        with self._send("GET", path, headers=headers, stream=True, timeout=(3, _STREAM_SILENCE)) as answer:
            yield from _events(line.decode() for line in answer.iter_lines(64 * 1024))

    def _json(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        answer = self._send(method, f"/api/v1{path}", **arguments)
        try:
            found: dict[str, Any] = answer.json()
        except ValueError:
            raise errors.RemoteError(f"{self.server.url} did not answer with JSON; is it a keepflow master?") from None
        return found

    def _send(self, method: str, path: str, **arguments: Any) -> requests.Response:
        arguments.setdefault("timeout", _TIMEOUT)
        address = self.server.url.rstrip("/") + path
        try:
            # A redirect would carry the token to wherever it points.
            answer = self._session.request(method, address, allow_redirects=False, **arguments)
        except requests.RequestException as error:
            raise errors.Unavailable(f"cannot reach {self.server.url}: {_plainly(error)}", code="unreachable") from None
        if answer.status_code >= 300:
            raise _problem(answer, self.server)
        return answer


def connect() -> Client:
    """Return a client for the server this command line is set up for; raises AuthError or UsageError saying how to."""
    context = click.get_current_context(silent=True)
    chosen = (context.find_root().obj or {}) if context else {}
    return Client(find_server(chosen.get("url"), chosen.get("token_file"), os.environ))


def at(*parts: object) -> str:
    """Join the parts of a path below `/api/v1`, each made safe."""
    return "".join(f"/{quote(str(part), safe='')}" for part in parts)


def _problem(answer: requests.Response, server: Server) -> errors.KeepflowError:
    try:
        said = answer.json()
        code, detail = str(said["code"]), str(said["detail"])
    except (ValueError, KeyError, TypeError):
        return errors.RemoteError(f"{server.url} answered {answer.status_code}; is it a keepflow master?")
    if answer.status_code == 401:
        detail = f"{detail} ({server.told_by})"
    kind = _KINDS.get(answer.status_code, errors.UsageError if answer.status_code < 500 else errors.RemoteError)
    return kind(detail, code=code)


def _plainly(error: requests.RequestException) -> str:
    if isinstance(error, requests.Timeout):
        return "it does not answer in time"
    if isinstance(error, requests.exceptions.SSLError):
        return "its certificate is not trusted here; name its CA with KEEPFLOW_CA_FILE"
    return "nothing listens there, or the network is down"


def _events(lines: Iterator[str]) -> Iterator[StreamEvent]:
    name, number = "message", ""
    data: list[str] = []
    for line in lines:
        if line.startswith(":"):
            continue
        if not line:
            if data:
                yield StreamEvent(name, number, json.loads("\n".join(data)))
            name, data = "message", []
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            name = value
        elif field == "id":
            number = value
        elif field == "data":
            data.append(value)
