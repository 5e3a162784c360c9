"""The few threads in which the gateway reads database and files, so that the event loop never waits for either."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from sqlalchemy import Connection

from keepflow.store.database import Database

T = TypeVar("T")


class Readers:
    """A small pool; what does not fit waits its turn."""

    def __init__(self, database: Database, threads: int = 8) -> None:
        self._database = database
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="gateway")

    async def query(self, work: Callable[[Connection], T]) -> T:
        """Return what `work` reads through a read connection of its own."""

        def reading() -> T:
            with self._database.read() as conn:
                return work(conn)

        return await self.call(reading)

    async def call(self, work: Callable[[], T]) -> T:
        """Return what a function that may block returns."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    def close(self) -> None:
        """Let nobody wait for what is still being read."""
        self._pool.shutdown(wait=False, cancel_futures=True)
