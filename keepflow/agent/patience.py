"""How long a job waits for its master: one that is being restarted is no reason to fail."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import urlsplit

from keepflow import errors
from keepflow.core.text import words
from keepflow.tools import http_get
from keepflow.tools.brake import stoppable

T = TypeVar("T")
MOST = 600.0  #: seconds that an unreachable master is waited for
_FIRST, _LONGEST = 0.2, 10.0  #: seconds between two tries: about, and at most
_TRIES = 3  #: of what fails although the master answers: it may just have come back
_LOOK = 5.0  #: seconds for a look whether it answers


@dataclass(frozen=True, slots=True)
class Patience:
    """What a job that asks its master for something does when that fails; `tell` says in its log that it waits."""

    master: str
    tell: Callable[[str], None]
    most: float = MOST

    def begin(self) -> Waiting:
        """Begin with one request."""
        return Waiting(self, time.monotonic() + self.most)


@dataclass(slots=True)
class Waiting:
    """The tries of one request."""

    patience: Patience
    deadline: float
    _failed: int = 0
    _answered: int = 0
    _told: bool = False

    def again(self) -> bool:
        """Wait, after a try that failed, until the next one may; False when it is not worth one. Raises Stopped."""
        if answers(self.patience.master):
            self._answered += 1
            if self._answered >= _TRIES:
                return False
        elif not self._told:
            self._told = True
            self.patience.tell(f"── the master cannot be reached; waits for it, {words(self.patience.most)} at most")
        if time.monotonic() >= self.deadline:
            return False
        longest = min(_LONGEST, _FIRST * 2**self._failed)
        self._failed += 1
        _rest(min(random.uniform(longest / 2, longest), self.deadline - time.monotonic()))  # noqa: S311 - guards nothing
        return True

    @property
    def over(self) -> str:
        """Say how long it was waited for, as the end of a sentence; "" when it was not."""
        return f"; it was waited for, {words(self.patience.most)}" if self._told else ""


def patiently(waiting: Waiting | None, act: Callable[[], T]) -> T:
    """Do what does no harm when it is done twice until the master answers, or has been waited for long enough."""
    while True:
        try:
            return act()
        except errors.Unavailable as error:
            if waiting is None or not waiting.again():
                over = waiting.over if waiting else ""
                raise errors.Unavailable(f"{error.message}{over}", code=error.code) from None


def answers(master: str) -> bool:
    """Say whether a master, or what stands before it, answers and does not say that it is away."""
    place = urlsplit(master)
    tls = place.hostname if place.scheme == "https" else None
    port = place.port or (443 if tls else 80)
    with contextlib.suppress(http_get.NoAnswer):
        headers = {"Host": place.netloc}
        answer = http_get.get(place.hostname or "", port, "/healthz", headers, timeout=_LOOK, tls_name=tls)
        return answer.status < 500
    return False


def _rest(seconds: float) -> None:
    """Wait, or until the brake is pulled."""
    stopped = threading.Event()
    with stoppable(stopped.set):
        stopped.wait(max(0.0, seconds))
