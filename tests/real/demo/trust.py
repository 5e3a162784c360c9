"""What makes a promote one to trust: evidence that anybody can check, a bad release put back, a way back."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.real.demo.doors import Door
from tests.real.demo.repository import replacing
from tests.real.demo.story import Live, Story
from tests.real.demo.telling import Teller
from tests.real.demo.world import World

_SERVES = '        if path == "/echo":\n            if method'
#: In test all is well; in production it ends among its first visitors, which no health check foresees.
_FAILS_VISITORS = """\
        if path == "/" and self.version["environment"] == "prod":
            self.visits = getattr(self, "visits", 0) + 1
            if self.visits > 20:
                print("no visitor number 21 was foreseen", file=sys.stderr, flush=True)
                os._exit(3)
"""
_LIVE_SECONDS = 60.0


@dataclass(slots=True)
class Visits:
    """What visitors of one front door got: how many came, and what was wrong where something was."""

    asked: int = 0
    wrong: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class PutBack:
    """A release that did not do, and how it was put back."""

    tested: Live
    before: str  #: the marker that production showed
    deployment: dict[str, Any]
    visits: Visits
    seconds: float  #: from the press until production was as before


class Trust:
    """Tells what a tester, a visitor and somebody in a hurry see."""

    def __init__(self, world: World, teller: Teller, story: Story) -> None:
        self._world = world
        self._teller = teller
        self._story = story

    def verify(self, directory: Path) -> Path:
        """Fetch the evidence of what serves in test, and check it without the master; return the file."""
        kept = directory / "evidence.json"
        digest = self._world.master.environment("test")["serving"]["identity"]
        self._world.keepflow("verify", digest, "--save", str(kept))
        self._world.keepflow("verify", str(kept))
        self._teller.step("verify", f"how {digest[:19]} was built and who tested it fits; checked offline")
        return kept

    def bad_release(self) -> PutBack:
        """Promote what passes every test and fails its visitors; wait until production is as before."""
        world = self._world
        door = world.doors["production"]
        before = door.marker()
        world.repository.edit("master", {"serve.py": replacing(_SERVES, _FAILS_VISITORS + _SERVES)}, "Break it")
        try:
            tested = self._story.tested()
        finally:
            world.repository.edit("master", {"serve.py": replacing(_FAILS_VISITORS + _SERVES, _SERVES)}, "Mend it")
        with visitors(door) as visits:
            began = time.monotonic()
            pressed = world.promote(tested.run)
            if pressed.returncode:
                raise RuntimeError(f"keepflow promote ended with {pressed.returncode}:\n{pressed.stderr}")
            run = world.master.api.get(f"/deployments/{pressed.stdout.strip()}")["run"]
            world.master.ended(run)
            seconds = door.shows(before, _LIVE_SECONDS) - began
        deployment = world.master.deployment(run)
        self._teller.step(
            "bad release",
            f"{deployment['phase']} after {seconds:.2f} s, {visits.asked} visitors: {deployment['reason']}",
        )
        return PutBack(tested, before, deployment, visits, seconds)

    def roll_back(self) -> Live:
        """Promote a good release, then go back to the one before it."""
        world = self._world
        door = world.doors["production"]
        before, commit = door.marker(), door.version()["commit"]
        world.master.ended(self._story.promote(self._story.tested()).run)
        began = time.monotonic()
        asked = world.keepflow.attempt("rollback", "--to", "production", "--yes")
        if asked.returncode:
            raise RuntimeError(f"keepflow rollback ended with {asked.returncode}:\n{asked.stderr}")
        run = world.master.api.get(f"/deployments/{asked.stdout.strip()}")["run"]
        seconds = door.shows(before, _LIVE_SECONDS, lambda: world.master.bad_end(run)) - began
        self._teller.step("rollback", f"live in {seconds:.2f} s, run {run}: {self._story.url('production')}")
        return Live("production", before, commit, run, seconds)


@contextmanager
def visitors(door: Door) -> Iterator[Visits]:
    """Let a visitor after the other come in while the block runs."""
    visits, over = Visits(), threading.Event()

    def come() -> None:
        while not over.is_set():
            visits.asked += 1
            try:
                status = door.get()[0]
            except (OSError, http.client.HTTPException) as error:
                visits.wrong.append(repr(error))
            else:
                if status != 200:
                    visits.wrong.append(f"status {status}")

    comers = [threading.Thread(target=come, daemon=True) for _ in range(4)]
    for comer in comers:
        comer.start()
    try:
        yield visits
    finally:
        over.set()
        for comer in comers:
            comer.join(10)
