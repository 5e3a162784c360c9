"""A brake for work that waits for others: pulled from another thread, it ends the programs and connections in use.

What may take long says how it is ended (`stoppable`); it does so by itself when a brake is in force (`Brake.applied`),
and nothing in between has to hand the brake on.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar

from keepflow import errors

_in_force: ContextVar[Brake | None] = ContextVar("brake", default=None)


class Brake:
    """Ends what is done under it, once. `pull` may be called from any thread at any time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pulled = False
        self._ends: dict[int, Callable[[], None]] = {}
        self._next = 0

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Let the brake hold for what this thread does inside."""
        token = _in_force.set(self)
        try:
            yield
        finally:
            _in_force.reset(token)

    def pull(self) -> None:
        """End what is under way, and let nothing new begin."""
        with self._lock:
            self._pulled = True
            for end in self._ends.values():  # with the lock: nobody leaves his block while it is being ended
                end()

    @contextlib.contextmanager
    def over(self, end: Callable[[], None]) -> Iterator[None]:
        """Let `end` be called when the brake is pulled meanwhile; raises Stopped when it was pulled before or is."""
        with self._lock:
            self._check()
            self._next += 1
            number = self._next
            self._ends[number] = end
        try:
            yield
        except (errors.KeepflowError, OSError):
            with self._lock:
                self._check()  # what failed because it was ended is no fault
            raise
        finally:
            with self._lock:
                self._ends.pop(number)
        self._check()

    def _check(self) -> None:
        if self._pulled:
            raise errors.Stopped("it was stopped on the way")


@contextlib.contextmanager
def stoppable(end: Callable[[], None]) -> Iterator[None]:
    """Say how what is done inside is ended from another thread, by the brake that is in force, if any.

    `end` may be called once, at any moment until the block is left; it must not raise. Raises Stopped.
    """
    brake = _in_force.get()
    if brake is None:
        yield
        return
    with brake.over(end):
        yield
