"""From a push to its first step, and to visitors seeing it; floors: bare scripts that do the same without records."""

from __future__ import annotations

import contextlib
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.bench.figures import Figure, in_turn
from tests.bench.forge import Forge
from tests.bench.scripts import Checkout, Naive, StartFirst
from tests.bench.visitors import Visitor
from tests.real.demo.files import PROJECT
from tests.real.demo.repository import instead
from tests.real.demo.world import World

_STEP_ROUNDS = 15
_LIVE_ROUNDS = 12
_QUEUED = 200  #: runs that wait behind a push
_CLOCK = "date +at=%s.%N"
#: The same `docker build` as in the bare scripts: what is compared is everything around it.
_FLOW = """\
version: 1
image: {image}
container:
  port: 8080
  health: {{path: /healthz}}
  volumes: [{{name: log, at: /project/log, shared: true}}]
flows:
  dev:
    on: {{push: dev}}
    steps:
      - run: |
          docker build --quiet --tag "{image}/dev:b$BUILD_NUMBER" .
          echo "image={image}/dev:b$BUILD_NUMBER" >>"$KEEPFLOW_OUTPUT"
      - deploy: dev
"""


def to_step(world: World, directory: Path) -> Iterator[Figure]:
    """Measure from the webhook to the first step's process; floor: `git fetch`, checkout, fork."""
    forge, checkout = Forge(world), Checkout(world.repository.bare, directory / "to-step")
    flow = f"version: 1\nflows:\n  clock:\n    on: {{push: clock}}\n    steps:\n      - run: {_CLOCK}\n"
    world.repository.edit("clock", {".keepflow.yml": instead(flow)}, "Tell the time")

    def floor() -> float:
        forge.push("clock")
        began = time.time()
        checkout.update("clock")
        done = subprocess.run(["sh", "-c", _CLOCK], cwd=checkout.directory, capture_output=True, text=True, check=True)
        return (_at(done.stdout) - began) * 1000

    def mine() -> float:
        _, sha = forge.push("clock")
        began = time.time()
        forge.tell("clock", sha)
        run = world.master.ended(world.master.run_of(sha)["number"])
        return (_at(world.master.log_of(run["number"])) - began) * 1000

    mine()  # the first one clones
    floors, mines = in_turn(_STEP_ROUNDS, floor, mine)
    yield Figure("push_to_step", "ms", floors, mines)
    with _queued(world):
        floors, mines = in_turn(_STEP_ROUNDS, floor, mine)
    yield Figure("push_to_step_queued", "ms", floors, mines, [f"{_QUEUED} runs wait for an agent meanwhile"])


@contextlib.contextmanager
def _queued(world: World) -> Iterator[None]:
    """Have many runs wait for an agent that is not there; they are looked at whenever work is handed out."""
    api, runs = world.master.api, f"/projects/{PROJECT}/runs"
    flow = "version: 1\nflows:\n  wait:\n    on: {manual: true}\n    labels: [elsewhere]\n    steps: [{run: 'true'}]\n"
    world.repository.edit("wait", {".keepflow.yml": instead(flow)}, "Wait for an agent")
    world.repository.push("wait")
    asked = {"flow": "wait", "ref": "wait", "inputs": {}}
    numbers = [api.post(runs, asked)["run"] for _ in range(_QUEUED)]
    try:
        yield
    finally:
        for number in numbers:
            api.post(f"{runs}/{number}/cancel", {})


def to_live(world: World, directory: Path) -> Iterator[Figure]:
    """Measure from the webhook to the new page through nginx, against the careful script and the common one."""
    forge = Forge(world)
    world.repository.edit(
        "dev", {".keepflow.yml": instead(_FLOW.format(image=world.image))}, "Build as bare scripts do"
    )
    with contextlib.ExitStack() as stack:
        first = StartFirst(world.engine, world.repository.bare, directory)
        stack.callback(first.close)
        naive = Naive(world.engine, world.repository.bare, directory)
        stack.callback(naive.close)
        yield from _live(world, forge, first, naive)


def _live(world: World, forge: Forge, first: StartFirst, naive: Naive) -> Iterator[Figure]:
    door = world.doors["dev"]
    times: dict[str, list[float]] = {"first": [], "naive": [], "mine": []}
    gaps: dict[str, list[float]] = {"first": [], "naive": [], "mine": []}
    for number in range(_LIVE_ROUNDS + 1):  # the first round starts from nothing and does not count
        marker, sha = forge.push("dev")
        with Visitor(first.door) as visitor:
            took = _until(lambda: first.deploy("dev"), lambda m=marker: first.door.shows(m, 30))
        _note(number, times["first"], took, gaps["first"], visitor.gap)
        first.tidy()
        with Visitor(naive.door) as visitor:
            took = _until(lambda: naive.deploy("dev"), lambda m=marker: naive.door.shows(m, 30))
        _note(number, times["naive"], took, gaps["naive"], visitor.gap)
        with Visitor(door) as visitor:
            took = _until(lambda s=sha: forge.tell("dev", s), lambda m=marker: door.shows(m, 60))
        _note(number, times["mine"], took, gaps["mine"], visitor.gap)
        world.quiet()
    longest = {name: f"{max(values):.0f} ms" for name, values in gaps.items()}
    notes = [f"longest time nobody answered: script {longest['first']}, keepflow {longest['mine']}"]
    yield Figure("push_to_live", "ms", times["first"], times["mine"], notes)
    notes = [f"longest time nobody answered: naive script {longest['naive']}, keepflow {longest['mine']}"]
    yield Figure("push_to_live_naive", "ms", times["naive"], times["mine"], notes)


def _until(act: Callable[[], None], seen: Callable[[], float]) -> float:
    began = time.monotonic()
    act()
    return (seen() - began) * 1000


def _note(number: int, times: list[float], took: float, gaps: list[float], gap: float) -> None:
    if number:
        times.append(took)
        gaps.append(gap * 1000)


def _at(text: str) -> float:
    found = re.search(r"^at=([\d.]+)$", text, re.MULTILINE)
    if found is None:
        raise RuntimeError(f"the step told no time: {text[-500:]}")
    return float(found[1])
