"""Waiting on facts instead of sleeping, and ports nobody uses."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class Hopeless(Exception):
    """Raised by a condition that will never come true any more: waiting ends at once."""


def wait_until(condition: Callable[[], T], seconds: float, what: str, every: float = 0.02) -> T:
    """Call `condition` until its answer is true and return that answer.

    `what` completes the sentence "… did not come true". An exception of `condition` counts as "not yet"; the last one
    is told in the error. Raises TimeoutError after `seconds`, and Hopeless as soon as the condition raises it.
    """
    deadline = time.monotonic() + seconds
    last: Exception | None = None
    while True:
        try:
            answer = condition()
            last = None
        except Hopeless:
            raise
        except Exception as error:  # the fact may not be askable yet: no socket, no file, no answer
            last = error
        else:
            if answer:
                return answer
        if time.monotonic() > deadline:
            why = f" (last error: {type(last).__name__}: {last})" if last else ""
            raise TimeoutError(f"{what} did not come true within {seconds:g} s{why}") from last
        time.sleep(every)


def free_port(address: str = "127.0.0.1") -> int:
    """Return a TCP port that was free on `address` a moment ago."""
    with socket.socket() as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])
