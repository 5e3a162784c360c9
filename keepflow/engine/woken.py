"""A thread that works when it is woken, or when it is time: what readers of the outbox have in common."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

import structlog

from keepflow import errors
from keepflow.engine.wakes import Wakes

log = structlog.get_logger(__name__)

LONGEST_WAIT = 60.0  #: seconds between two turns, however little there is to do
_LULL = 0.1  #: seconds for more to happen, before a turn looks at all of it


class Woken:
    """Takes turns in a thread of its own; a turn that fails is followed by the next one.

    `turn` returns the seconds to wait when nobody wakes it. `heard` is called in the firing thread before the wake.
    """

    def __init__(
        self, name: str, wakes: Wakes, turn: Callable[[], float], heard: Mapping[str, Callable[[], None] | None]
    ) -> None:
        self._name, self._wakes, self._turn, self._heard = name, wakes, turn, heard
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._subscriptions: list[Callable[[], None]] = []

    @property
    def stopping(self) -> bool:
        """Whether nothing more should be begun."""
        return self._stop.is_set()

    def start(self) -> None:
        """Begin with a turn at once."""
        self._subscriptions = [self._wakes.subscribe(topic, self._woken_by(topic)) for topic in self._heard]
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """Take no further turn; the one under way ends with the process if it takes longer than `timeout` seconds."""
        for unsubscribe in self._subscriptions:
            unsubscribe()
        self._stop.set()
        self._wake.set()
        self._thread.join(timeout)

    def wake(self) -> None:
        """Have it take a turn."""
        self._wake.set()

    def _woken_by(self, topic: str) -> Callable[[], None]:
        note = self._heard[topic]

        def woken() -> None:
            if note is not None:
                note()
            self._wake.set()

        return woken

    def _run(self) -> None:
        while not self._stop.is_set():
            wait = LONGEST_WAIT
            try:
                wait = self._turn()
            except errors.KeepflowError as error:
                log.warning("a turn was not taken", work=self._name, reason=error.message)
            except Exception:
                log.exception("a turn failed", work=self._name)
            self._wake.wait(max(0.0, min(wait, LONGEST_WAIT)))
            self._wake.clear()
            self._stop.wait(_LULL)
