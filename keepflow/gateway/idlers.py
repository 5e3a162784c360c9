"""Connections that never come to the point: opened without a request, or sending one letter by letter.

uvicorn times idle keep-alive connections, but neither the first request of a connection nor the head of any request.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any
from weakref import WeakKeyDictionary

#: Seconds in which the head of a request must have come, and how often that is looked at.
HEAD_SECONDS = 20.0
_LOOK = 5.0


class Idlers:
    """Watches the connections of one uvicorn server; costs nothing per request."""

    def __init__(self, connections: set[Any]) -> None:
        self._connections = connections
        self._since: WeakKeyDictionary[Any, float] = WeakKeyDictionary()

    async def watch(self) -> None:
        """Close what has been idling for too long, until cancelled."""
        while True:
            await asyncio.sleep(_LOOK)
            self.look(time.monotonic())

    def look(self, now: float) -> None:
        """Close the connections that have owed the head of a request since too long ago."""
        for connection in list(self._connections):
            if not _owes_a_head(connection):
                self._since.pop(connection, None)
            elif now - self._since.setdefault(connection, now) >= HEAD_SECONDS:
                connection.transport.close()


def _owes_a_head(connection: Any) -> bool:
    if not hasattr(connection, "cycle"):
        return False  # a WebSocket
    waiting = connection.cycle is None or connection.cycle.response_complete
    return waiting and connection.timeout_keep_alive_task is None
