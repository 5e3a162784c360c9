"""The master's clock as this host knows it: set by the master's answers, carried on by the kernel's own counter."""

from __future__ import annotations

import threading
import time

MOST_SKEW = 60.0  #: seconds between the clocks of master and host that somebody should hear of


class Clock:
    """UTC microseconds. Until the master was heard, this host's own clock is all there is; then `measured` is set."""

    def __init__(self) -> None:
        self.measured = threading.Event()
        self._lock = threading.Lock()
        self._offset = time.time_ns() // 1000 - _counter()
        self._width: int | None = None

    def now(self) -> int:
        """Return the time on the master's clock; a jump of the host's clock does not move it."""
        with self._lock:
            return self._offset + _counter()

    def heard(self, master_time: int, asked: int) -> None:
        """Take the master's time from an answer; `asked` is what `mark` returned when the question was sent.

        The narrowest question-and-answer so far decides, so that a slow link does not bend the clock.
        """
        answered = _counter()
        width = answered - asked
        with self._lock:
            if self._width is None or width <= self._width:
                self._offset = master_time - (asked + width // 2)
                self._width = width
            else:
                self._width += 1000  # an old answer is worth a little less at every beat: quartz drifts
        self.measured.set()

    @staticmethod
    def mark() -> int:
        """Return the moment a question is sent, for `heard`."""
        return _counter()

    @property
    def skew(self) -> float:
        """Seconds by which this host's own clock is ahead of the master's."""
        return (time.time_ns() // 1000 - self.now()) / 1e6


def _counter() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000
