"""Who gets a free agent first: by priority, and yet nobody starves.

A priority is a head start in time and no class of its own: a job of low priority is overtaken only by what comes within
the next hour, and then it is the oldest.
"""

from __future__ import annotations

from enum import StrEnum


class Priority(StrEnum):
    """How urgent the script jobs of a flow are."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


#: Microseconds by which a job counts as earlier than it came.
HEAD_START = {Priority.HIGH: 1800 * 1_000_000, Priority.NORMAL: 0, Priority.LOW: -1800 * 1_000_000}


def rank(priority: str, created_at: int) -> int:
    """Return the place of a job in the line for agents: the lowest is handed out first."""
    return created_at - HEAD_START[Priority(priority)]
