"""Who wants to be woken when something is committed; topics are plain strings.

Topics: `deliveries`, `dispatch`, `agent:<id>` (new outgoing row), `run:<id>` (state or steps changed), `log:<fence>`
(bytes written), `events` (any event committed). A wake carries nothing: whoever is woken looks into the database.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog

log = structlog.get_logger(__name__)


class Wakes:
    """Topics and their subscribers; safe from any thread, never blocks, callbacks run outside of the lock."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._topics: dict[str, tuple[Callable[[], None], ...]] = {}

    def subscribe(self, topic: str, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` on every fire of a topic, in the firing thread, until the returned function is called.

        A callback must not block: set an event, or `call_soon_threadsafe`.
        """

        def unsubscribe() -> None:
            with self._lock:
                rest = tuple(other for other in self._topics.get(topic, ()) if other is not own)
                if rest:
                    self._topics[topic] = rest
                else:
                    self._topics.pop(topic, None)

        def own() -> None:  # its own identity, so that one callback may be subscribed twice
            callback()

        with self._lock:
            self._topics[topic] = (*self._topics.get(topic, ()), own)
        return unsubscribe

    def fire(self, topic: str) -> None:
        """Wake everybody who is subscribed to a topic now."""
        for callback in self._topics.get(topic, ()):
            try:
                callback()
            except Exception:
                log.exception("a woken subscriber failed", topic=topic)
