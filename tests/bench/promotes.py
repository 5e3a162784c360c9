"""From the press of Promote to the first page of a release that was rehearsed; floor: the application's own start."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.bench.figures import Figure, in_turn
from tests.bench.scripts import wait_for
from tests.real.demo.claims import running_images
from tests.real.demo.doors import Door
from tests.real.demo.files import PROJECT
from tests.real.demo.story import Story
from tests.real.demo.telling import Teller
from tests.real.demo.world import World

_ROUNDS = 5
_NAME = "keepflow-bench-start"
_LABEL = "keepflow.bench=1"


def figures(world: World, directory: Path) -> Iterator[Figure]:  # noqa: ARG001 - every bench is called alike
    """Measure it with a release of its own for every round."""
    story = Story(world, Teller())
    with contextlib.redirect_stdout(sys.stderr):  # stdout is for figures
        world.master.ended(story.promote(story.tested()).run)
        floors, mines = in_turn(_ROUNDS, lambda: _start(world), lambda: _promote(world, story))
    yield Figure("promote_rehearsed", "ms", floors, mines, ["the floor is docker run until its first answer"])


def _start(world: World) -> float:
    """Start what serves in test once more, by hand, and return the milliseconds until it answers."""
    [[image]] = running_images(world.engine, world.names.test)
    began = time.monotonic()
    world.engine.docker("run", "--detach", "--init", "--label", _LABEL, "--name", _NAME, image, "test")
    try:
        address = world.engine.docker("inspect", "--format", "{{.NetworkSettings.IPAddress}}", _NAME)
        wait_for(Door(f"http://{address}:8080", "localhost"))
        return (time.monotonic() - began) * 1000
    finally:
        world.engine.attempt("rm", "--force", _NAME)


def _promote(world: World, story: Story) -> float:
    """Test and rehearse a new release, then return the milliseconds from the press to its first page."""
    tested = story.tested()
    world.keepflow("promote", "--run", str(tested.run), "--to", "production", "--rehearse", "--wait", "--yes")
    world.quiet()
    began = time.monotonic()
    pressed = world.master.api.post(f"/projects/{PROJECT}/environments/production/promotions", {"run": tested.run})
    seconds = world.doors["production"].shows(tested.marker, 60) - began
    world.master.ended(pressed["run"])
    return seconds * 1000
