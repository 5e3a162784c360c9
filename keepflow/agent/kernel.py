"""The two things of Linux that Python does not offer: to be told that a file grew, and to free the start of a file."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
from pathlib import Path

_IN_MODIFY = 0x2
_IN_CLOEXEC, _IN_NONBLOCK = os.O_CLOEXEC, os.O_NONBLOCK
_KEEP_SIZE, _PUNCH_HOLE = 1, 2
_POLL = 0.025  #: seconds between two looks where the kernel has no watch to give (or the file lies on a network)
_WATCHED = 1.0  #: seconds between two looks all the same, where it has one

_libc = ctypes.CDLL(None, use_errno=True)


class Watch:
    """Waits until a file grew or somebody calls `wake`."""

    def __init__(self, path: Path) -> None:
        self._inotify = _libc.inotify_init1(_IN_CLOEXEC | _IN_NONBLOCK)
        if self._inotify >= 0 and _libc.inotify_add_watch(self._inotify, os.fsencode(path), _IN_MODIFY) < 0:
            os.close(self._inotify)
            self._inotify = -1
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._poll = select.poll()
        self._waking = select.poll()
        self._waking.register(self._wake, select.POLLIN)
        for descriptor in self._descriptors():
            self._poll.register(descriptor, select.POLLIN)

    def wait(self) -> None:
        """Return when the file may have grown; also now and then without a reason."""
        for descriptor, _ in self._poll.poll((_POLL if self._inotify < 0 else _WATCHED) * 1000):
            self._clear(descriptor)

    def rest(self, seconds: float) -> None:
        """Let the file grow for a moment; only `wake` ends it early."""
        if self._waking.poll(seconds * 1000):
            self._clear(self._wake)

    def wake(self) -> None:
        """Make `wait` return; callable from every thread."""
        os.eventfd_write(self._wake, 1)

    def close(self) -> None:
        """Give the watch back."""
        for descriptor in self._descriptors():
            os.close(descriptor)

    def _clear(self, descriptor: int) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(descriptor, 4096)

    def _descriptors(self) -> list[int]:
        return [descriptor for descriptor in (self._inotify, self._wake) if descriptor >= 0]


def free_start(descriptor: int, start: int, end: int) -> None:
    """Give the disk blocks of [start, end) back, offsets unchanged; a file system that cannot do it keeps them."""
    if end > start:
        _libc.fallocate(descriptor, _PUNCH_HOLE | _KEEP_SIZE, ctypes.c_longlong(start), ctypes.c_longlong(end - start))
