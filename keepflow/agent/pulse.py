"""Signs of life of an agent's parts: each says how long it may be silent; one that is silent for longer hangs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

LOOK = "the look at what serves"  #: the part that looks after fronts and containers, and tells heartbeats what serves
SLOW_ENGINE = 300.0  #: seconds an engine may take for one thing it is told


class Pulse:
    """What the watchdog asks before it says that the agent is alive. Safe from any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._until: dict[str, float] = {}

    def beat(self, part: str, allow: float) -> None:
        """Say that a part gets on, and that it may be silent for so many seconds now."""
        with self._lock:
            self._until[part] = self._clock() + allow

    def rest(self, part: str) -> None:
        """Say that a part has nothing to do."""
        with self._lock:
            self._until.pop(part, None)

    def hung(self) -> list[str]:
        """Name the parts that are silent for longer than they may be."""
        now = self._clock()
        with self._lock:
            return sorted(part for part, until in self._until.items() if now > until)
