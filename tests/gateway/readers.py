"""A reader of server-sent events over a bare connection, that can break off at any byte."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.processes import MasterProcess


@dataclass(frozen=True)
class Heard:
    """One event; comments have the name "" and no data."""

    name: str
    data: Any
    id: str | None = None
    retry: int | None = None


class Reader:
    """One connection to a stream."""

    def __init__(
        self, master: MasterProcess, path: str, last_id: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        self.last_id = last_id
        lines = {"Host": f"127.0.0.1:{master.port}", "Authorization": f"Bearer {master.admin_token}", **(headers or {})}
        if last_id:
            lines["Last-Event-ID"] = last_id
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value)
        self._socket = socket.create_connection(("127.0.0.1", master.port), timeout=30)
        self._socket.sendall(f"GET {path} HTTP/1.1\r\n{head}\r\n".encode("latin-1"))
        self._raw = b""
        self._text = b""
        self._ended = False
        self._read_until(lambda: b"\r\n\r\n" in self._raw, 30)
        answer, _, self._raw = self._raw.partition(b"\r\n\r\n")
        self.status = int(answer.split()[1])
        self.headers = answer.decode("latin-1").lower()

    def next(self, timeout: float = 20) -> Heard | None:
        """Return the next event, None at the end of the stream; raises TimeoutError."""
        deadline = time.monotonic() + timeout
        while True:
            self._unchunk()
            block, found, rest = self._text.partition(b"\n\n")
            if found:
                self._text = rest
                return self._heard(block.decode())
            if self._ended:
                return None
            self._read(max(0.01, deadline - time.monotonic()))

    def until(self, name: str, timeout: float = 20) -> list[Heard]:
        """Return all events up to the first of a name."""
        heard = []
        deadline = time.monotonic() + timeout
        while (event := self.next(max(0.01, deadline - time.monotonic()))) is not None:
            heard.append(event)
            if event.name == name:
                return heard
        raise AssertionError(f"the stream ended without {name!r}; it said {[event.name for event in heard][-20:]}")

    def close(self) -> None:
        self._socket.close()

    def _heard(self, block: str) -> Heard:
        fields = dict(line.split(": ", 1) for line in block.split("\n") if not line.startswith(":"))
        if "id" in fields:
            self.last_id = fields["id"]
        data = json.loads(fields["data"]) if "data" in fields else None
        retry = int(fields["retry"]) if "retry" in fields else None
        return Heard(fields.get("event", ""), data, fields.get("id"), retry)

    def _unchunk(self) -> None:
        while True:
            size, found, rest = self._raw.partition(b"\r\n")
            length = int(size, 16) if found else 0
            if not found or len(rest) < length + 2:
                return
            self._text += rest[:length]
            self._raw = rest[length + 2 :]
            self._ended = self._ended or length == 0

    def _read(self, timeout: float) -> None:
        self._socket.settimeout(timeout)
        piece = self._socket.recv(65536)
        if not piece:
            self._ended = True
        self._raw += piece

    def _read_until(self, condition: Any, timeout: float) -> None:
        while not condition():
            self._read(timeout)
            if self._ended:
                raise ConnectionError(f"the server closed after {self._raw[:200]!r}")
