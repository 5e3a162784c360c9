"""What one more step costs: `true` many times in one job, on the machine (floor: `sh -c true`) and in a container of it
(floor: `docker exec … sh -c true`)."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.bench.figures import Figure, in_turn
from tests.real.demo.repository import instead
from tests.real.demo.world import World

_STEPS = 50
_BOX_STEPS = 20
_ROUNDS = 7
_BOX_ROUNDS = 3
_CLOCK = "date +at=%s.%N"
#: busybox's own `date` knows no parts of a second.
_BOX_CLOCK = """python3 -c 'import time; print(f"at={time.time()}")'"""


def figures(world: World, directory: Path) -> Iterator[Figure]:  # noqa: ARG001 - every bench is called alike
    """Measure the milliseconds of one step."""
    floor = _floor(["sh", "-c", "true"], _STEPS)
    yield _figure("step_overhead", *in_turn(_ROUNDS, floor, _steps(world, _STEPS, "")))
    image = world.engine.base_image("app")
    box = world.engine.docker("run", "--detach", "--interactive", "--init", image, "sh", "-c", "read -r line")
    try:
        floor = _floor(["docker", "--host", world.engine.host, "exec", box, "sh", "-c", "true"], _BOX_STEPS)
        mine = _steps(world, _BOX_STEPS, f"    image: {image}\n")
        yield _figure("box_step_overhead", *in_turn(_BOX_ROUNDS, floor, mine))
    finally:
        world.engine.docker("rm", "--force", box)


def _figure(name: str, floors: list[float], mines: list[float]) -> Figure:
    above = sorted(mines)[len(mines) // 2] - sorted(floors)[len(floors) // 2]
    return Figure(name, "ms/step", floors, mines, [f"{above:.2f} ms a step above the floor"])


def _steps(world: World, count: int, where: str) -> Callable[[], float]:
    """Return what runs a job of so many steps and measures one of them, by clocks printed at both ends."""
    command = _CLOCK if not where else _BOX_CLOCK
    clock = f"      - run: {command}"
    steps = "\n".join([clock, *["      - run: 'true'"] * count, clock])
    flow = f"version: 1\nflows:\n  many:\n    on: {{push: many}}\n{where}    steps:\n{steps}\n"
    world.repository.edit("many", {".keepflow.yml": instead(flow)}, "Have many steps")

    def mine() -> float:
        _, sha = world.repository.change("many")
        world.repository.push("many")
        run = world.master.ended(world.master.run_of(sha)["number"])
        if run["state"] != "succeeded":
            raise RuntimeError(f"the run of many steps {run['state']}: {run['reason']}")
        log = world.master.log_of(run["number"])
        begin, end = (float(at) for at in re.findall(r"^at=([\d.]+)$", log, re.MULTILINE))
        return (end - begin) / (count + 1) * 1000

    return mine


def _floor(argv: list[str], count: int) -> Callable[[], float]:
    def floor() -> float:
        began = time.monotonic()
        for _ in range(count):
            subprocess.run(argv, check=True)
        return (time.monotonic() - began) / count * 1000

    return floor
