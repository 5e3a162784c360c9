"""A visitor who asks again and again, and notes how long nobody answered."""

from __future__ import annotations

import threading
import time

from tests.real.demo.doors import Door


class Visitor:
    """Asks a door every few milliseconds from `with` to its end; `gap` is the longest time without a good answer."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self.gap = 0.0

    def __enter__(self) -> Visitor:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _ask(self) -> None:
        refused_since: float | None = None
        while not self._done.wait(0.005):
            if self._door.marker():
                if refused_since is not None:
                    self.gap = max(self.gap, time.monotonic() - refused_since)
                refused_since = None
            elif refused_since is None:
                refused_since = time.monotonic()
