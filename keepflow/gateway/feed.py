"""What changes: the events table as one reader may see it, as names only, so that pages know what to ask for again."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy import Connection

from keepflow.engine.context import Master
from keepflow.gateway.readers import Readers
from keepflow.gateway.sse import Sse
from keepflow.store import agents, environments, events, projects, runs
from keepflow.store.events import StoredEvent

_BATCH = 200
#: Shortest time between two looks, in seconds: a storm of pushes must not become a storm of queries per open page.
_PAUSE = 0.2
#: Events of no project that everybody who is signed in may know of.
_FOR_ALL = ("agent-",)


@dataclass(frozen=True, slots=True)
class Sight:
    """What one reader may see: these projects (None = all), and whether also what belongs to no project."""

    projects: frozenset[int] | None
    server: bool

    def shows(self, project_id: int | None, kind: str) -> bool:
        """Say whether an event is for this reader."""
        if project_id is None:
            return self.server or kind.startswith(_FOR_ALL)
        return self.projects is None or project_id in self.projects


class Feed:
    """Writes events to one stream."""

    def __init__(self, master: Master, readers: Readers, stream: Sse, sight: Sight, after: int) -> None:
        self._master, self._readers, self._stream, self._sight = master, readers, stream, sight
        self._after = after

    async def follow(self) -> None:
        """Send every event that comes and is visible."""
        unsubscribe = self._master.wakes.subscribe("events", self._stream.bell.ring)
        try:
            while not self._stream.over:
                found = await self._readers.query(partial(_since, after=self._after))
                for number, project_id, data in found:
                    self._after = number
                    if self._sight.shows(project_id, data["kind"]):
                        await self._stream.event("change", data, str(number))
                if len(found) == _BATCH:
                    continue
                if not await self._stream.wait():
                    return
                await asyncio.sleep(_PAUSE)
        finally:
            unsubscribe()


def _since(conn: Connection, after: int) -> list[tuple[int, int | None, dict[str, Any]]]:
    return [(event.id, event.project_id, _named(conn, event)) for event in events.since(conn, after, _BATCH)]


def _named(conn: Connection, event: StoredEvent) -> dict[str, Any]:
    environment = environments.by_id(conn, event.environment_id) if event.environment_id else None
    return {
        "id": event.id,
        "at": event.at,
        "kind": event.kind,
        "project": projects.by_id(conn, event.project_id).name if event.project_id else None,
        "run": runs.by_id(conn, event.run_id).number if event.run_id else None,
        "environment": environment.name if environment else None,
        "deployment": event.deployment_id,
        "agent": agents.by_id(conn, event.agent_id).name if event.agent_id else None,
    }
