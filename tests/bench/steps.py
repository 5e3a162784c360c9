"""What one more step costs: 50 steps `true` in one job; floor: 50 times `sh -c true`."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests.bench.figures import Figure, in_turn
from tests.real.demo.repository import instead
from tests.real.demo.world import World

_STEPS = 50
_ROUNDS = 7
_CLOCK = "date +at=%s.%N"


def figures(world: World, directory: Path) -> Iterator[Figure]:  # noqa: ARG001 - every bench is called alike
    """Measure the milliseconds of one step."""
    steps = "\n".join([f"      - run: {_CLOCK}", *["      - run: 'true'"] * _STEPS, f"      - run: {_CLOCK}"])
    flow = f"version: 1\nflows:\n  many:\n    on: {{push: many}}\n    steps:\n{steps}\n"
    world.repository.edit("many", {".keepflow.yml": instead(flow)}, "Have many steps")

    def mine() -> float:
        _, sha = world.repository.change("many")
        world.repository.push("many")
        run = world.master.ended(world.master.run_of(sha)["number"])
        if run["state"] != "succeeded":
            raise RuntimeError(f"the run of many steps {run['state']}: {run['reason']}")
        begin, end = (
            float(at) for at in re.findall(r"^at=([\d.]+)$", world.master.log_of(run["number"]), re.MULTILINE)
        )
        return (end - begin) / (_STEPS + 1) * 1000

    floors, mines = in_turn(_ROUNDS, _floor, mine)
    above = sorted(mines)[len(mines) // 2] - sorted(floors)[len(floors) // 2]
    yield Figure("step_overhead", "ms/step", floors, mines, [f"{above:.2f} ms a step above the floor"])


def _floor() -> float:
    began = time.monotonic()
    for _ in range(_STEPS):
        subprocess.run(["sh", "-c", "true"], check=True)
    return (time.monotonic() - began) / _STEPS * 1000
