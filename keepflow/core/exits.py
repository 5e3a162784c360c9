"""What an exit code means, in words for people."""

from __future__ import annotations

import signal

_MEANINGS = {
    124: "it ran out of time",
    125: "the container could not be started",
    126: "the command was found but is not runnable: is it executable, is its interpreter there?",
    127: "the command was not found",
    130: "it was interrupted",
    137: "it was killed, or the machine ran out of memory",
    143: "it was asked to stop",
}


def meaning(code: int) -> str:
    """Return what an exit code other than 0 usually means, or "" for one that only its program can explain."""
    if code in _MEANINGS:
        return _MEANINGS[code]
    if 128 < code < 128 + 65:
        try:
            return f"it died of {signal.Signals(code - 128).name}"
        except ValueError:
            return ""
    return ""
