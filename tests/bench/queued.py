"""How fast a queue of jobs that do nothing is worked off by one agent; floor: `sh -c :` between two fsynced commits."""

from __future__ import annotations

import sqlite3
import subprocess
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from tests.bench.figures import Figure, in_turn
from tests.real.demo.world import World
from tests.real.up import Up

_JOBS = 200
_ROUNDS = 5
_SLOTS = 8  #: jobs that the agent runs at once
_ASKED = 0.25  #: seconds between two questions whether the run has ended; its own times are what is measured
_FLOW = f"""\
flows:
  queue:
    on: manual
    jobs:
      noop:
        matrix: {{axes: {{n: [{", ".join(map(str, range(_JOBS)))}]}}}}
        steps: [{{run: ":"}}]
"""


def figures(world: World, directory: Path) -> Iterator[Figure]:  # noqa: ARG001 - every bench is called alike
    """Measure jobs per second of a run of 200 jobs that are all ready when it begins."""
    up = Up(directory, jobs=_SLOTS)
    try:
        up.start()
        up.run(_FLOW, "queue")  # the first one clones into every lane
        floors, mines = in_turn(_ROUNDS, lambda: _floor(directory), lambda: _mine(up))
    finally:
        up.close()
    yield Figure("queued_jobs", "jobs/s", floors, mines, [f"{_JOBS} jobs of one run, {_SLOTS} slots on one agent"])


def _mine(up: Up) -> float:
    run = up.ended(up.begin(_FLOW, "queue"), every=_ASKED)
    if run["state"] != "succeeded":
        raise RuntimeError(f"the run of many jobs {run['state']}: {run['reason']}")
    took = datetime.fromisoformat(run["finished_at"]) - datetime.fromisoformat(run["created_at"])
    return _JOBS / took.total_seconds()


def _floor(directory: Path) -> float:
    database = sqlite3.connect(directory / "floor.db", isolation_level=None)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=FULL")
    database.execute("CREATE TABLE IF NOT EXISTS jobs (id INTEGER PRIMARY KEY, state TEXT)")
    began = time.monotonic()
    for _ in range(_JOBS):
        database.execute("INSERT INTO jobs (state) VALUES ('running')")
        subprocess.run(["sh", "-c", ":"], check=True)
        database.execute("UPDATE jobs SET state = 'succeeded' WHERE state = 'running'")
    rate = _JOBS / (time.monotonic() - began)
    database.close()
    return rate
