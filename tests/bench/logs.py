"""Logs: 200 MB in 2 million lines until they are stored and watched, and how old a line is when a watcher has it.

Floors: the same lines written to a file and synced; the same ticks read from a pipe.
"""

from __future__ import annotations

import http.client
import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from tests.bench.figures import Figure, in_turn
from tests.real.demo.files import PROJECT
from tests.real.demo.repository import instead
from tests.real.demo.world import World

_LINE = "[ 12%] Building CXX object src/CMakeFiles/app.dir/main.cpp.o, a line of one hundred bytes with its end"[:99]
_STEPS, _BYTES = 5, 40_000_000  #: a step's log may have 50 MB
_BIG = f"date +at=%s.%N; yes '{_LINE}' | head -c {_BYTES}"
_TICKS = "i=0; while [ $i -lt 300 ]; do i=$((i+1)); date +at=%s.%N; sleep 0.01; done"
_ROUNDS = 3
_AT = re.compile(rb"at=(\d+\.\d{9})")


def figures(world: World, directory: Path) -> Iterator[Figure]:
    """Measure the seconds of 200 MB, the memory meanwhile, and the milliseconds of a line."""
    big = "\n".join([f'      - run: "{_BIG}"'] * _STEPS)
    flow = "version: 1\nflows:\n  big:\n    on: {manual: true}\n    steps:\n" + big
    flow += f'\n  ticks:\n    on: {{manual: true}}\n    steps:\n      - run: "{_TICKS}"\n'
    world.repository.edit("logs", {".keepflow.yml": instead(flow)}, "Have much to say")
    world.repository.push("logs")
    grown: list[float] = []
    parent = str(world.master.pid)
    agent = subprocess.run(["pgrep", "-P", parent, "-f", "agent run"], capture_output=True, text=True, check=True)
    processes = [world.master.pid, *map(int, agent.stdout.split())]

    def mine() -> float:
        before = [_memory(pid, "VmRSS") for pid in processes]
        for pid in processes:
            Path(f"/proc/{pid}/clear_refs").write_text("5")  # the highest so far is from now on
        seconds = _watched(world, "big")[0]
        grown.extend(_memory(pid, "VmHWM") - was for pid, was in zip(processes, before, strict=True))
        return seconds

    floors, mines = in_turn(_ROUNDS, lambda: _to_file(directory), mine)
    yield Figure("log_200_mb", "s", floors, mines, [f"highest memory of master or agent: {max(grown):+.0f} MB"])
    ages = sorted(_watched(world, "ticks")[1])
    yield Figure("log_line_p50", "ms", [_from_pipe()], [ages[len(ages) // 2]])
    yield Figure("log_line_p99", "ms", [_from_pipe()], [ages[len(ages) * 99 // 100]])


def _watched(world: World, flow: str) -> tuple[float, list[float]]:
    """Start a flow and follow it: seconds from its first tick to its last byte, and how old each tick was (ms)."""
    number = world.master.api.post(f"/projects/{PROJECT}/runs", {"flow": flow, "ref": "logs", "inputs": {}})["run"]
    parts, token = urlsplit(world.master.url), (world.master.home / "admin.token").read_text().strip()
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=300)
    path = f"/streams/runs/{PROJECT}/{number}/log"
    connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
    answer = connection.getresponse()
    first, last, rest, ages = 0.0, 0.0, b"", list[float]()
    while data := answer.read1(1 << 20):
        now, seen = time.time(), rest + data
        if b"at=" in seen:
            ticks = [float(tick) for tick in _AT.findall(seen)]
            first = first or next(iter(ticks), 0.0)
            ages += [(now - tick) * 1000 for tick in ticks]
        last = now if b"Building" in data else last
        rest = seen[-40:] if not _AT.search(seen[-40:]) else b""
    connection.close()
    return last - first, ages


def _memory(pid: int, what: str) -> float:
    """Return the resident memory of a process in MB: as it is now, or the highest."""
    found = re.search(rf"{what}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) / 1000 if found else 0.0


def _to_file(directory: Path) -> float:
    began, path = time.monotonic(), directory / "plain.log"
    with path.open("wb") as file:
        for _ in range(_STEPS):
            subprocess.run(["sh", "-c", _BIG], stdout=file, check=True)
        os.fsync(file.fileno())
    path.unlink()
    return time.monotonic() - began


def _from_pipe() -> float:
    ages = []
    with subprocess.Popen(["sh", "-c", _TICKS], stdout=subprocess.PIPE) as ticking:
        for line in ticking.stdout or ():
            ages.append((time.time() - float(line[3:])) * 1000)
    return sorted(ages)[len(ages) // 2]
