"""Waking coroutines: a bell that any thread rings, and the one word that everything is about to close."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


class Bell:
    """Any thread rings it, one coroutine hears it; many rings before it looks are one. Made in the event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._event = asyncio.Event()
        self._rung = False

    def ring(self) -> None:
        """Wake the waiting coroutine, now or when it next waits; never blocks."""
        if not self._rung:
            self._rung = True
            self._loop.call_soon_threadsafe(self._event.set)

    async def wait(self, seconds: float | None = None) -> bool:
        """Wait for a ring since the last wait; False when none came within `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                await self._event.wait()
        except TimeoutError:
            return False
        # This order loses no ring: one that comes in between sets the event once more.
        self._rung = False
        self._event.clear()
        return True


class Closing:
    """Whether the server is about to close, told to everybody who holds a connection open."""

    def __init__(self) -> None:
        self.begun = False
        self._bells: set[Bell] = set()
        self._gone = asyncio.Event()

    @contextmanager
    def heard_by(self, bell: Bell) -> Iterator[None]:
        """Ring this bell when closing begins, as long as the block lasts."""
        self._bells.add(bell)
        try:
            yield
        finally:
            self._bells.discard(bell)
            if not self._bells:
                self._gone.set()

    @property
    def open(self) -> int:
        """How many connections are held open now."""
        return len(self._bells)

    async def begin(self, patience: float) -> None:
        """Tell everybody, and wait until they have said farewell, at most `patience` seconds."""
        self.begun = True
        self._gone.clear()
        for bell in list(self._bells):
            bell.ring()
        if self._bells:
            try:
                async with asyncio.timeout(patience):
                    await self._gone.wait()
            except TimeoutError:
                return
