"""Places for fetches: one project's slow readers leave room for everybody else's."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

from keepflow.gateway.git import Git


def test_fetches_of_one_project_leave_places_for_another() -> None:
    """A job may open fetches and never read them (T35)."""

    async def story() -> list[bool]:
        nothing: Any = None
        git = Git(nothing, nothing)
        async with contextlib.AsyncExitStack() as held:

            async def enters(mirror: str) -> bool:
                try:
                    async with asyncio.timeout(0.05):
                        await held.enter_async_context(git.place(Path(mirror)))
                except TimeoutError:
                    return False
                return True

            return [await enters("greedy") for _ in range(5)] + [await enters("other") for _ in range(4)]

    assert asyncio.run(story()) == [True] * 4 + [False] + [True] * 4
