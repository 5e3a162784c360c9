"""Reading what an engine says while it pulls: the stream ends without an exception also when the pull failed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from keepflow.errors import DeployFailed

_PULL_SECONDS = 1800.0
_TOLD_ONCE = frozenset({"Pull complete", "Already exists"})


def follow(lines: Iterable[Any], reference: str, say: Callable[[str], None]) -> None:
    """Read the stream to its end and tell each finished layer once.

    Raises DeployFailed `pull-failed` for an error in the stream, or after half an hour.
    """
    deadline = time.monotonic() + _PULL_SECONDS
    for line in lines:
        if "error" in line:
            raise DeployFailed(f"{reference} cannot be pulled: {line['error']}", code="pull-failed")
        if line.get("status") in _TOLD_ONCE and line.get("id"):
            say(f"layer {line['id']}: {line['status'].lower()}")
        if time.monotonic() > deadline:
            raise DeployFailed(f"{reference} was not pulled within {_PULL_SECONDS:g} s", code="pull-failed")
