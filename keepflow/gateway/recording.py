"""Webhooks on their way into the store: those that come together are stored together.

While one group is being synced the next one gathers, so under load a group costs one hand-over between threads and one
statement instead of one of each per hook; alone, a hook waits for nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
from concurrent.futures import Future
from functools import partial

from keepflow import errors
from keepflow.engine import intake
from keepflow.engine.context import Master

_MOST = 64  #: calls in one group
Waiter = asyncio.Future[intake.Recorded]


class Recording:
    """Takes calls from one event loop and submits them in groups."""

    def __init__(self, master: Master) -> None:
        self._master = master
        self._gathering: list[tuple[intake.Call, Waiter]] = []
        self._under_way = False

    async def record(self, call: intake.Call) -> intake.Recorded:
        """Return what became of a call once it is committed; raises OutOfSpace and Unavailable."""
        loop = asyncio.get_running_loop()
        waiter: Waiter = loop.create_future()
        self._gathering.append((call, waiter))
        if not self._under_way:
            self._under_way = True
            loop.call_soon(self._submit, loop)
        return await waiter

    def _submit(self, loop: asyncio.AbstractEventLoop) -> None:
        group, self._gathering = self._gathering[:_MOST], self._gathering[_MOST:]
        work = partial(intake.record_all, master=self._master, calls=[call for call, _ in group])
        try:
            future = self._master.writer.submit(work)
        except errors.Unavailable as error:
            self._settle(loop, group, None, error)
        else:
            future.add_done_callback(partial(self._stored, loop, group))

    def _stored(
        self,
        loop: asyncio.AbstractEventLoop,
        group: list[tuple[intake.Call, Waiter]],
        done: Future[list[intake.Recorded]],
    ) -> None:
        """Hand the outcome to the event loop; called in the writer thread."""
        error = done.exception()
        found = done.result() if error is None else None
        with contextlib.suppress(RuntimeError):  # the loop is closed: the process ends
            loop.call_soon_threadsafe(self._settle, loop, group, found, error)

    def _settle(
        self,
        loop: asyncio.AbstractEventLoop,
        group: list[tuple[intake.Call, Waiter]],
        found: list[intake.Recorded] | None,
        error: BaseException | None,
    ) -> None:
        for number, (_, waiter) in enumerate(group):
            if waiter.done():  # its sender has gone
                continue
            if found is not None:
                waiter.set_result(found[number])
            elif error is not None:
                waiter.set_exception(error)
        self._under_way = bool(self._gathering)
        if self._under_way:
            self._submit(loop)
