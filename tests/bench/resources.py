"""What keepflow takes while nothing happens, and to start; the floor is a Python that does nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.bench.figures import Figure, in_turn
from tests.real.demo.processes import memory
from tests.real.demo.world import World

_QUIET_SECONDS = 20
_ROUNDS = 5


def figures(world: World, directory: Path) -> Iterator[Figure]:  # noqa: ARG001 - every bench is called alike
    """Measure resident memory, processor share, and start-up times."""
    world.quiet()
    bare = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        floor = memory(bare.pid)
    finally:
        bare.communicate(b"\n")
    processes = {"master": world.master.pid, "agent": world.production.pid}
    for name, pid in processes.items():
        yield Figure(f"idle_memory_{name}", "MB", [floor], [memory(pid)])
    before = {name: _processor(pid) for name, pid in processes.items()}
    began = time.monotonic()
    time.sleep(_QUIET_SECONDS)  # the measurement itself: what is used while nothing is asked for
    for name, pid in processes.items():
        share = (_processor(pid) - before[name]) / (time.monotonic() - began) * 100
        yield Figure(f"idle_processor_{name}", "%", [0.0], [share])
    yield Figure(
        "help", "ms", *in_turn(_ROUNDS, lambda: _run("-c", ""), lambda: _run(str(world.keepflow.program), "--help"))
    )

    def restart() -> float:
        world.master.stop()
        return world.master.start() * 1000

    floors, mine = in_turn(_ROUNDS, lambda: _run("-c", ""), restart)
    yield Figure("master_ready", "ms", floors, mine)


def _run(*argv: str) -> float:
    began = time.monotonic()
    subprocess.run([sys.executable, *argv], check=True, capture_output=True, timeout=30)
    return (time.monotonic() - began) * 1000


def _processor(pid: int) -> float:
    """Return the seconds of processor time a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
