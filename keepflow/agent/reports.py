"""Numbered reports on disk: written before they are sent, repeated until the master has committed them.

One file of lines `<crc32> <report as JSON>`; appended, never changed, rewritten now and then without what is confirmed.
A line that was torn by a crash is dropped: nobody was told of it, for a report is sent only after its fsync.
"""

from __future__ import annotations

import json
import os
import threading
import zlib
from collections import deque
from collections.abc import Callable
from pathlib import Path

from keepflow.tools.files import write_atomic
from keepflow.wire import messages

_ENDS = ("job-finished", "job-refused")
_COMPACT_AT = 256 * 1024  #: bytes of file above which confirmed reports are cut away


class Reports:
    """The reports of one agent directory. Every method may be called from every thread."""

    def __init__(self, path: Path, wake: Callable[[], None] = lambda: None) -> None:
        self._path = path
        self._wake = wake
        self._lock = threading.Lock()
        self._waiting: deque[tuple[int, str]] = deque()
        self._unwritten: list[bytes] = []
        self._waiting_bytes = 0
        self._number = 0
        self.finished: dict[int, int] = {}  #: fence → number of the report of its end, as the file was when opened
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._confirmed_file = os.open(
            path.with_name(f"{path.name}-confirmed"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
        self._size = self._load()
        self._dirty = True

    def append(self, body: messages.ReportBody) -> int:
        """Give a report its number and write it; returns the number. It is sent after the next `sync`."""
        with self._lock:
            self._number += 1
            text = messages.Report(number=self._number, body=body).model_dump_json()
            self._wait_for(self._number, text)
            self._unwritten.append(_line(text))
            number = self._number
            self._write()
        self._wake()
        return number

    def sync(self) -> bool:
        """Put everything on the disk for good; False when the disk is full (nothing may be sent then, try again)."""
        with self._lock:
            if not self._write():
                return False
            dirty, self._dirty = self._dirty, False
        if dirty:
            os.fsync(self._descriptor)  # an error here is fatal on purpose: after it the kernel no longer knows
        return True

    def after(self, number: int, limit: int = 256) -> list[tuple[int, str]]:
        """Return up to `limit` unconfirmed reports above a number, as (number, frame)."""
        with self._lock:
            return [entry for entry in self._waiting if entry[0] > number][:limit]

    def confirm(self, number: int) -> None:
        """Forget the reports up to this number: the master has committed them."""
        with self._lock:
            self._forget(number)
            os.pwrite(self._confirmed_file, b"%020d" % number, 0)  # lost in a power cut, they are sent twice, as ever
            if self._size > _COMPACT_AT + 2 * self._waiting_bytes and not self._unwritten:
                self._compact()

    @property
    def confirmed(self) -> int:
        """The highest number up to which the master has everything."""
        with self._lock:
            return self._waiting[0][0] - 1 if self._waiting else self._number

    def close(self) -> None:
        """Give the file back."""
        os.close(self._descriptor)
        os.close(self._confirmed_file)

    def _forget(self, number: int) -> None:
        while self._waiting and self._waiting[0][0] <= number:
            self._waiting_bytes -= len(self._waiting.popleft()[1])
        self._number = max(self._number, number)  # a disk that went back in time must not use numbers twice

    def _wait_for(self, number: int, text: str) -> None:
        self._waiting.append((number, text))
        self._waiting_bytes += len(text)

    def _load(self) -> int:
        good = 0
        data = self._path.read_bytes()
        for raw in data.splitlines(keepends=True):
            text = raw[9:-1].decode(errors="replace")
            if not raw.endswith(b"\n") or _line(text) != raw:
                break
            good += len(raw)
            line = json.loads(text)  # as it stands: another version may have written it
            self._number = line["number"]
            if body := line.get("body"):  # the first line after a cut holds only the number that was given last
                self._wait_for(self._number, text)
                if body["type"] in _ENDS:
                    self.finished[body["fence"]] = self._number
        if good < len(data):
            os.ftruncate(self._descriptor, good)
        self._forget(int(os.pread(self._confirmed_file, 20, 0) or b"0"))
        return good

    def _write(self) -> bool:
        while self._unwritten:
            line = self._unwritten[0]
            try:
                written = os.write(self._descriptor, line)
            except OSError:
                written = -1
            if written != len(line):
                os.ftruncate(self._descriptor, self._size)
                return False
            self._unwritten.pop(0)
            self._size += len(line)
            self._dirty = True
        return True

    def _compact(self) -> None:
        base = self._waiting[0][0] - 1 if self._waiting else self._number
        lines = [_line(f'{{"number":{base}}}'), *(_line(text) for _, text in self._waiting)]
        content = b"".join(lines)
        write_atomic(self._path, content, 0o600)
        fresh = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
        os.dup2(fresh, self._descriptor, inheritable=False)
        os.close(fresh)
        self._size = len(content)


def _line(text: str) -> bytes:
    data = text.encode()
    return b"%08x %b\n" % (zlib.crc32(data), data)
