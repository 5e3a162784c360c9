"""The master's time."""

from __future__ import annotations

import time


def now() -> int:
    """Return the time as UTC microseconds; every function that stores a time is given it by its caller."""
    return time.time_ns() // 1000
