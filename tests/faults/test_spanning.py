"""A run that spans two machines, with a process killed at each point of the way that its files take (R32)."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from keepflow.tools.failpoints import VARIABLE
from tests.real.several import Several
from tests.real.waiting import wait_until

FLOW = """\
flows:
  flow:
    on: manual
    jobs:
      make: {labels: linux, steps: [run: "head -c 9000000 /dev/urandom >large; sha256sum large >sum; echo 1 >made"]}
      use: {needs: make, labels: gpu, steps: [run: "sha256sum -c sum && cat made"]}
"""


@pytest.mark.parametrize(
    ("point", "where"),
    [("handing.packed", "linux"), ("handing.sent", "linux"), ("handing.fetched", "gpu"), ("handing.taken", "master")],
)
def test_r32_files_arrive_whole_whoever_is_killed_on_their_way(tmp_path: Path, point: str, where: str) -> None:
    several = Several(tmp_path, linux=("linux",), gpu=("gpu",))
    armed = {VARIABLE: f"{point}=kill"}
    if where == "master":
        several.master.env = armed
    else:
        several.agents[where].env.update(armed)
    try:
        several.start()
        number = several.begin(FLOW)
        process = several.master.process if where == "master" else several.agents[where].process
        assert isinstance(process, subprocess.Popen)
        wait_until(lambda: process.poll() is not None, 60, f"the end of {where}")
        assert process.returncode == -9
        if where == "master":
            several.master.env = {}
            several.master.start()
        else:
            several.agents[where].env.clear()
            several.agents[where].spawn()
        run = several.ended(number)
        assert run["state"] == "succeeded", several.log(number)
        assert [len(job["attempts"]) for job in run["jobs"].values()] == [1, 1]
        assert several.log(number).count("\nlarge: OK\n1\n") == 1
        wait_until(lambda: not list((several.master.home / "workspaces").iterdir()), 90, "the end of the repository")
        assert not list(several.place.glob("*/agent/**/kept.json")), "nothing is kept for a run that has ended"
    finally:
        several.close()
