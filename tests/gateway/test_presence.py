"""Heartbeats that wait to be written down: what they say is not told after what has happened since."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

from keepflow.gateway.presence import Presence
from keepflow.wire.messages import Heartbeat, ServiceState

_OLD = ServiceState(service="shop", instance="main", environment="shop/test", identity="sha256:old")
_NEW = _OLD.model_copy(update={"identity": "sha256:new"})


class _Written:
    """A writer that remembers the heartbeats it was handed."""

    def __init__(self) -> None:
        self.beats: list[Heartbeat] = []

    def submit(self, work: Any) -> Future[None]:
        self.beats += work.keywords["news"].values()
        done: Future[None] = Future()
        done.set_result(None)
        return done


def _beat(*services: ServiceState) -> Heartbeat:
    return Heartbeat(at=1, running=(7,), services=services)


async def _all_written(written: _Written, count: int) -> list[Heartbeat]:
    async with asyncio.timeout(10):
        while len(written.beats) < count:
            await asyncio.sleep(0.01)
    return written.beats


def test_what_a_heartbeat_said_of_services_is_not_written_after_the_end_of_a_deployment() -> None:
    async def story() -> None:
        written = _Written()
        presence = Presence(SimpleNamespace(writer=written))  # type: ignore[arg-type]  # only its writer is used
        presence.heard(1, _beat(_OLD))
        presence.heard(2, _beat(_OLD))
        presence.overtaken(1)
        found = {beat.services for beat in await _all_written(written, 2)}
        assert found == {(), (_OLD,)}, "only of the agent that told an end, and it is still known to live"
        assert {beat.running for beat in written.beats} == {(7,)}

    asyncio.run(story())


def test_what_is_said_after_the_end_of_a_deployment_is_written_also_when_it_was_said_before() -> None:
    async def story() -> None:
        written = _Written()
        presence = Presence(SimpleNamespace(writer=written))  # type: ignore[arg-type]  # only its writer is used
        presence.heard(1, _beat(_NEW))
        await _all_written(written, 1)
        presence.overtaken(1)
        presence.heard(1, _beat(_NEW))
        assert (await _all_written(written, 2))[-1].services == (_NEW,)

    asyncio.run(story())
