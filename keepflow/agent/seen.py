"""Fences of attempts that are gone from this disk: whoever sends one of them again gets no second attempt.

One line each, appended and synced before what it is of is taken away; rewritten now and then without the oldest.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Collection
from pathlib import Path

from keepflow import errors
from keepflow.tools.files import write_atomic

REMEMBERED = 4096  #: the master repeats a message only until it was received


class Seen:
    """The fences of one file; not to be used by two threads at once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        text = path.read_text()
        whole = text[: text.rfind("\n") + 1]
        if len(whole) < len(text):  # torn by a crash: what it was of is still there
            os.ftruncate(self._file, len(whole))
        self._fences = dict.fromkeys(map(int, whole.split()))

    def __contains__(self, fence: int) -> bool:
        return fence in self._fences

    @property
    def highest(self) -> int:
        """The highest of them, 0 for none."""
        return max(self._fences, default=0)

    def add(self, fences: Collection[int]) -> None:
        """Remember fences for good; raises OutOfSpace, and remembers none of them then."""
        size = os.fstat(self._file).st_size
        data = "".join(f"{fence}\n" for fence in fences).encode()
        try:
            if os.write(self._file, data) < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            os.ftruncate(self._file, size)
            raise errors.OutOfSpace(f"{self._path}: the disk is full; free some space and try again") from error
        os.fdatasync(self._file)
        self._fences |= dict.fromkeys(fences)
        if len(self._fences) > 2 * REMEMBERED:
            self._forget_old()

    def _forget_old(self) -> None:
        kept = list(self._fences)[-REMEMBERED:]
        write_atomic(self._path, "".join(f"{fence}\n" for fence in kept).encode(), 0o600)
        fresh = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
        os.dup2(fresh, self._file, inheritable=False)
        os.close(fresh)
        self._fences = dict.fromkeys(kept)
