"""Live streams for pages and the command line: the log of a run, and what changes anywhere."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar
from urllib.parse import parse_qs

from sqlalchemy import Connection
from starlette.types import Receive, Scope, Send

from keepflow import errors
from keepflow.engine import clock, people
from keepflow.engine.context import Master
from keepflow.gateway.answers import allow, header
from keepflow.gateway.bell import Closing
from keepflow.gateway.feed import Feed, Sight
from keepflow.gateway.readers import Readers
from keepflow.gateway.runlog import Position, RunLog
from keepflow.gateway.sse import opened
from keepflow.gateway.viewers import viewer, visible_project
from keepflow.store import events, runs

T = TypeVar("T")


class Streams:
    """`GET /streams/runs/{project}/{number}/log` and `GET /streams/events`."""

    def __init__(self, master: Master, readers: Readers, closing: Closing) -> None:
        self._master, self._readers, self._closing = master, readers, closing

    async def run_log(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Follow one run from its first line, or from where the reader left off."""
        allow(scope, "GET")
        find = partial(_find_run, master=self._master, scope=scope)
        run_id = await self._readers.query(find)
        position = Position.parse(_last_event_id(scope))
        async with opened(receive, send, self._closing, self._still(find, run_id)) as stream:
            await RunLog(self._master, self._readers, stream, run_id, position).follow()

    async def events(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Follow what changes in all projects the reader may see, or in one of them."""
        allow(scope, "GET")
        find = partial(_sight, master=self._master, scope=scope)
        sight = await self._readers.query(find)
        newest = await self._readers.query(events.last_id)
        seen = _last_event_id(scope)
        after = min(int(seen), newest) if seen.isascii() and seen.isdigit() and len(seen) < 19 else newest
        async with opened(receive, send, self._closing, self._still(find, sight)) as stream:
            await Feed(self._master, self._readers, stream, sight, after).follow()

    def _still(self, find: Callable[[Connection], T], found: T) -> Callable[[], Awaitable[bool]]:
        """Return the question whether the reader may still see what was found at the beginning."""

        async def allowed() -> bool:
            try:
                return await self._readers.query(find) == found
            except (errors.AuthError, errors.NotFound):
                return False

        return allowed


def _find_run(conn: Connection, master: Master, scope: Scope) -> int:
    user = viewer(conn, master, scope, clock.now())
    project = visible_project(conn, user, scope["path_params"]["project"])
    run = runs.by_number(conn, project.id, int(scope["path_params"]["number"]))
    if run is None:
        raise errors.NotFound("there is no such run", code="no-run")
    return run.id


def _sight(conn: Connection, master: Master, scope: Scope) -> Sight:
    user = viewer(conn, master, scope, clock.now())
    wanted = parse_qs(scope["query_string"].decode("latin-1")).get("project")
    if wanted:
        return Sight(frozenset({visible_project(conn, user, wanted[0]).id}), server=False)
    return Sight(people.visible_projects(conn, user), server=user.admin)


def _last_event_id(scope: Scope) -> str:
    return (header(scope, b"last-event-id") or b"").decode("latin-1")
