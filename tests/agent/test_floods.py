"""A job that floods its log, or prints one endless line, harms only itself: memory, disk and the job beside it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from keepflow.agent.folding import LINE_LIMIT
from keepflow.agent.sieve import STEP_LIMIT, STEP_TAIL
from keepflow.wire.messages import JobFinished
from tests.agent.processes import Builder
from tests.real.waiting import wait_until

MB = 1024 * 1024
TICKS = 'i=0; while [ ! -e "$STOP" ]; do i=$((i+1)); echo tick $i; sleep 0.01; done; echo "last $i"'


def _resident(pid: int, what: str = "VmRSS") -> int:
    found = re.search(rf"{what}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("short", "whole", "script"),
    [
        (60, 1024, "yes 'a line of a flood, which says nothing and says it all the time' | head -c {size}M"),
        (60, 200, "head -c {size}M /dev/zero | tr '\\0' x; echo; echo after the line"),
    ],
    ids=["flood", "line"],
)
def test_a_flood_or_an_endless_line_harms_only_its_own_job(
    builder: Builder,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    numbers: Callable[..., None],
    short: int,
    whole: int,
    script: str,
) -> None:
    size = whole if request.config.getoption("--long") else short
    assert builder.agent.process is not None
    pid, stop = builder.agent.process.pid, tmp_path / "stop"
    quiet = builder.send(TICKS, env={"STOP": str(stop)})
    builder.master.await_log(quiet, b"tick 5\n")
    before = _resident(pid)
    Path(f"/proc/{pid}/clear_refs").write_text("5")  # the highest so far is from now on
    began, ticks = time.monotonic(), len(builder.master.logs[quiet])
    fence = builder.send(script.format(size=size), "echo the next step goes on")
    builder.master.await_report(JobFinished, fence, 900)
    flood = builder.result(fence)
    seconds, grown = time.monotonic() - began, _resident(pid, "VmHWM") - before
    assert flood.end.state == "succeeded"
    assert "\nthe next step goes on\n" in flood.log
    assert len(flood.log) < STEP_LIMIT + STEP_TAIL + 10_000
    if "yes" in script:
        assert "this step's log is cut here" in flood.log
    else:
        assert "after the line" in flood.log
        assert max(map(len, flood.log.splitlines())) < LINE_LIMIT + 100
    wait_until(lambda: len(builder.master.logs[quiet]) > ticks, 20, "ticks of the other job")
    stop.touch()
    other = builder.result(quiet)
    counted = [int(number) for number in re.findall(r"^tick (\d+)$", other.log, re.MULTILINE)]
    assert other.end.state == "succeeded"
    assert counted == list(range(1, len(counted) + 1)), "a line of the other job was lost or doubled"
    assert other.log.count(f"last {len(counted)}\n") == 1
    assert grown < 40 * MB, f"the agent grew by {grown / MB:.0f} MB"
    numbers(megabytes=size, seconds=[round(seconds, 1)], grown_mb=[round(grown / MB, 1)], ticks_beside=len(counted))
