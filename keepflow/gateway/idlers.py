"""Connections that never come to the point: opened without a request, or sending one letter by letter.

uvicorn times idle keep-alive connections only: neither the head of a request nor its body need ever come to an end.
Here all connections are looked at now and then, so that it costs a request nothing.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any
from weakref import WeakKeyDictionary

#: Seconds for the head of a request and for its body; senders of webhooks themselves give up after 10.
HEAD_SECONDS, BODY_SECONDS = 20.0, 40.0
_LOOK = 5.0


class Idlers:
    """Watches the connections of one uvicorn server."""

    def __init__(self, connections: set[Any]) -> None:
        self._connections = connections
        self._since: WeakKeyDictionary[Any, float] = WeakKeyDictionary()

    async def watch(self) -> None:
        """Close what has been idling for too long, until cancelled."""
        while True:
            await asyncio.sleep(_LOOK)
            self.look(time.monotonic())

    def look(self, now: float) -> None:
        """Close the connections that have owed the rest of a request since too long ago; `now` is in seconds."""
        for connection in list(self._connections):
            owing, patience = _owes(connection)
            if owing is not connection:
                self._since.pop(connection, None)
            if owing is not None and now - self._since.setdefault(owing, now) >= patience:
                connection.transport.close()

    def dismiss(self) -> None:
        """Close every connection that owes the rest of a request: the server stops and waits for nobody."""
        for connection in list(self._connections):
            if _owes(connection)[0] is not None:
                connection.transport.close()


def _owes(connection: Any) -> tuple[Any, float]:
    """Return what is waited for (None = nothing) and how long it may take: a connection's next head, or a body."""
    if not hasattr(connection, "cycle"):
        return None, 0.0  # a WebSocket
    cycle = connection.cycle
    if cycle is None or cycle.response_complete:
        return (connection if connection.timeout_keep_alive_task is None else None), HEAD_SECONDS
    return (cycle if cycle.more_body else None), BODY_SECONDS
