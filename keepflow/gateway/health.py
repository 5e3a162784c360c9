"""Is the process alive, can it work, and which version is it: open to everybody, and no more than that."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from sqlalchemy import Connection, text
from starlette.types import Receive, Scope, Send

from keepflow import __version__, errors
from keepflow.engine.context import Master
from keepflow.gateway.answers import allow, send_json
from keepflow.gateway.readers import Readers

#: With less than this free, in bytes, no push could be stored and no log written.
LEAST_FREE = 64 * 1024 * 1024
_PATIENCE = 2.0


class Health:
    """`/healthz`, `/readyz` and `/version`."""

    def __init__(self, master: Master, readers: Readers) -> None:
        self._master, self._readers = master, readers

    async def alive(self, scope: Scope, _receive: Receive, send: Send) -> None:
        """Say that the process answers."""
        allow(scope, "GET", "HEAD")
        await send_json(send, 200, {"status": "ok"})

    async def ready(self, scope: Scope, _receive: Receive, send: Send) -> None:
        """Say whether pushes can be taken: 200 or 503, and which part is missing."""
        allow(scope, "GET", "HEAD")
        database = self._master.writer.alive and await self._database_answers()
        disk = free_bytes(self._master.home) >= LEAST_FREE
        ready = database and disk
        parts = {"database": database, "disk": disk}
        await send_json(send, 200 if ready else 503, {"status": "ok" if ready else "unavailable", **parts})

    async def version(self, scope: Scope, _receive: Receive, send: Send) -> None:
        """Say which version runs."""
        allow(scope, "GET", "HEAD")
        await send_json(send, 200, {"version": __version__})

    async def _database_answers(self) -> bool:
        try:
            async with asyncio.timeout(_PATIENCE):
                return await self._readers.query(_schema_is_there)
        except (TimeoutError, errors.KeepflowError):
            return False


def free_bytes(path: Path) -> int:
    """Return how many bytes may still be written below a directory."""
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize


def _schema_is_there(conn: Connection) -> bool:
    return conn.execute(text("SELECT version_num FROM alembic_version")).scalar() is not None
