"""Orders of script jobs as they came: one file, a line each, so that many are on the disk for good by one sync.

Each attempt's own directory is written without a sync; after a power cut it is made again from here. Lines are
`<crc32> <JSON>`; one that was torn is dropped, for nobody was told of it. When no attempt is left the file is empty.
"""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

from keepflow import errors
from keepflow.tools.files import write_atomic

_COMPACT_AT = 256 * 1024  #: bytes of file above which lines that nobody needs any more are cut away
_CHECKSUM = 9  #: characters before the JSON


class Taken:
    """The orders of one file, by their fences; not to be used by two threads at once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._texts: dict[int, str] = {}
        self._size = self._load()
        self._dirty = False

    @property
    def texts(self) -> Mapping[int, str]:
        """What is kept, by fence."""
        return MappingProxyType(self._texts)

    def add(self, fence: int, text: str) -> None:
        """Write an order of one line; it is there for good after `sync`. Raises OutOfSpace, and writes nothing then."""
        line = _line(f"{fence} {text}")
        try:
            whole = os.write(self._file, line) == len(line)
        except OSError:
            whole = False
        if not whole:
            os.ftruncate(self._file, self._size)
            raise errors.OutOfSpace(f"{self._path}: the disk is full; free some space and try again")
        self._size += len(line)
        self._texts[fence] = text
        self._dirty = True

    def sync(self) -> None:
        """Put everything on the disk for good."""
        if self._dirty:
            os.fdatasync(self._file)  # an error here is fatal on purpose: after it the kernel no longer knows
            self._dirty = False

    def forget(self, fences: Iterable[int]) -> None:
        """Keep these no longer: nobody takes them up again."""
        for fence in fences:
            self._texts.pop(fence, None)
        if not self._texts:
            os.ftruncate(self._file, 0)
            self._size = 0
        elif self._size > _COMPACT_AT + 2 * sum(map(len, self._texts.values())):
            with contextlib.suppress(errors.OutOfSpace):  # it only gets longer
                self._compact()

    def _compact(self) -> None:
        content = b"".join(_line(f"{fence} {text}") for fence, text in self._texts.items())
        write_atomic(self._path, content, 0o600)
        fresh = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
        os.dup2(fresh, self._file, inheritable=False)
        os.close(fresh)
        self._size, self._dirty = len(content), False

    def _load(self) -> int:
        good, data = 0, self._path.read_bytes()
        for raw in data.splitlines(keepends=True):
            text = raw[_CHECKSUM:-1].decode(errors="replace")
            if _line(text) != raw:
                break
            good += len(raw)
            fence, _, order = text.partition(" ")
            self._texts[int(fence)] = order
        if good < len(data):
            os.ftruncate(self._file, good)
        return good


def _line(text: str) -> bytes:
    data = text.encode()
    return b"%08x %b\n" % (zlib.crc32(data), data)
