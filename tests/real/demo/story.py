"""The story of the demo: a push to dev, a push to master, a press of Promote; each is waited for at its front door."""

from __future__ import annotations

import time
from dataclasses import dataclass

from tests.real.demo.telling import Teller
from tests.real.demo.world import World

_LIVE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Live:
    """Something that went live: in which environment, by which run, and how long it took from the person's act on."""

    environment: str
    marker: str
    sha: str
    run: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Released:
    """What serves after the story was told once: in dev, in test, and promoted to production."""

    dev: Live
    test: Live
    production: Live


class Story:
    """Tells what a person does and what visitors see."""

    def __init__(self, world: World, teller: Teller) -> None:
        self._world = world
        self._teller = teller

    def release(self) -> Released:
        """Tell it all: push to dev, push to master, say that it is good, promote it."""
        dev = self.push("dev", "dev")
        test = self.tested()
        self._world.keepflow("tested", "--in", "test", "--note", "looked at every page")
        self._teller.step("tested", f"a tester says so of {test.marker} in test; the master signs it")
        return Released(dev, test, self.promote(test))

    def tested(self) -> Live:
        """Push to master and wait until its deployment to test is done: that is what a promote asks for."""
        test = self.push("master", "test")
        self._world.master.ended(test.run)
        return test

    def push(self, branch: str, environment: str) -> Live:
        """Change the page on a branch, push it, and wait until visitors of an environment see it."""
        world = self._world
        marker, sha = world.repository.change(branch)
        began = time.monotonic()
        world.repository.push(branch)
        pushed = time.monotonic() - began
        seconds = world.doors[environment].shows(marker, _LIVE_SECONDS, lambda: world.master.went_wrong(sha)) - began
        run = world.master.run_of(sha)["number"]
        times = f"live in {seconds:.2f} s (the push itself {pushed:.2f} s)"
        self._teller.step(f"push to {branch}", f"{times}, run {run}: {self.url(environment)}")
        return Live(environment, marker, sha, run, seconds)

    def promote(self, tested: Live) -> Live:
        """Press Promote for what serves in test, and wait until visitors of production see it."""
        world = self._world
        began = time.monotonic()
        pressed = world.promote(tested.run)
        if pressed.returncode:
            raise RuntimeError(f"keepflow promote ended with {pressed.returncode}:\n{pressed.stderr}")
        run = world.master.api.get(f"/deployments/{pressed.stdout.strip()}")["run"]
        door = world.doors["production"]
        seconds = door.shows(tested.marker, _LIVE_SECONDS, lambda: world.master.bad_end(run)) - began
        self._teller.step("promote", f"live in {seconds:.2f} s, run {run}: {self.url('production')}")
        return Live("production", tested.marker, tested.sha, run, seconds)

    def url(self, environment: str) -> str:
        """Return where a person looks at an environment."""
        return f"{self._world.doors[environment].url}/"
