"""A job that prints numbered lines while its master, or its agent, is killed again and again: no line lost or doubled.

Real processes, killed with SIGKILL at no chosen moment. With --long a hundred kills, else five.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.agent.processes import AgentProcess
from tests.processes import MasterProcess
from tests.real.waiting import wait_until
from tests.tools.repositories import bare, commit

pytestmark = pytest.mark.timeout(3600)  # the long form: seconds for each kill

LINES = 100_000
_PAUSES = 20  #: pauses of the job for each kill, so that it prints while it comes
_SCRIPT = """i=0
while [ $i -lt {lines} ]; do
  i=$((i+1)); echo $i
  if [ $((i % {pace})) = 0 ]; then sleep 0.05; fi
  if [ $((i % {part})) = 0 ]; then until [ -e {go}-$((i / {part})) ]; do sleep 0.02; done; fi
done
"""
_FLOW = """version: 1
flows:
  count: {on: {manual: true}, steps: [run: sh count.sh, run: echo the next step]}
"""


@dataclass
class Linked:
    """A real master as an agent's process sees it; fits `AgentProcess.master`."""

    master: MasterProcess

    @property
    def url(self) -> str:
        return self.master.url

    def token(self, name: str) -> str:
        """Make a join token."""
        made: str = self.master.api("POST", "/agents", {"name": name}).json["token"]
        return made

    @property
    def connected(self) -> bool:
        """Whether the agent is linked."""
        return any(agent["connected"] for agent in self.master.api("GET", "/agents").json["items"])

    def run(self) -> dict[str, Any]:
        """Return the one run."""
        found: dict[str, Any] = self.master.api("GET", "/projects/shop/runs/1").json
        return found

    @property
    def log(self) -> Path:
        """The log of the one job, as the master keeps it."""
        return self.master.home / "logs" / "shop" / "1" / "steps.1.log"

    def size(self) -> int:
        """Return how many bytes of log the master has."""
        return self.log.stat().st_size if self.log.exists() else 0


@pytest.fixture
def kills(request: pytest.FixtureRequest) -> int:
    """How often a process is killed."""
    return 100 if request.config.getoption("--long") else 5


@pytest.fixture
def linked(tmp_path: Path, kills: int) -> Iterator[tuple[Linked, AgentProcess]]:
    """A master with an agent, and the job begun."""
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    repository = bare(tmp_path / "repository")
    part = LINES // kills
    script = _SCRIPT.format(lines=LINES, pace=part // _PAUSES, part=part, go=tmp_path / "go")
    commit(repository, {".keepflow.yml": _FLOW, "count.sh": script})
    master = MasterProcess(home).start()
    root = tmp_path / "host"
    root.mkdir()
    linked = Linked(master)
    agent = AgentProcess(linked, root)
    try:
        master.apply({"shop": {"repo": str(repository)}})
        agent.start()
        assert master.api("POST", "/projects/shop/runs", {"flow": "count"}).status == 202
        wait_until(lambda: b"\n1\n" in linked.log.read_bytes(), 30, "the first line")
        yield linked, agent
    finally:
        agent.close()
        master.close()


def _kill_often(linked: Linked, kills: int, kill: Callable[[], None], go: Path) -> float:
    """Kill once while the job prints each part; return the seconds it took."""
    began = time.monotonic()
    for number in range(1, kills + 1):
        before = linked.size()
        kill()
        go.with_name(f"go-{number}").touch()  # the part after the one that is being printed
        wait_until(lambda before=before: linked.size() > before, 120, f"more of the log after kill {number}")
    return time.monotonic() - began


def _ended_well(linked: Linked) -> int:
    """Wait for the end of the job and return its lines, which must be 1 to LINES, each once, in order."""
    wait_until(lambda: linked.run()["finished_at"], 120, "the end of the run")
    run = linked.run()
    assert (run["state"], run["reason"]) == ("succeeded", "")
    assert len(run["jobs"][0]["attempts"]) == 1
    text = linked.log.read_text()
    numbers = [int(line) for line in text.split("\n") if line.isdigit()]
    assert numbers == list(range(1, LINES + 1)), _difference(numbers)
    assert text.count("\nthe next step\n") == 1
    return len(numbers)


def _difference(numbers: list[int]) -> str:
    wrong = next((at for at, number in enumerate(numbers, 1) if number != at), len(numbers) + 1)
    return f"{len(numbers)} lines; the first wrong one is line {wrong}: {numbers[wrong - 2 : wrong + 2]}"


def test_r54_no_line_is_lost_or_doubled_when_the_master_is_killed(
    linked: tuple[Linked, AgentProcess], kills: int, tmp_path: Path, numbers: Callable[..., None]
) -> None:
    link, _ = linked

    def kill() -> None:
        link.master.kill()
        link.master.start()

    seconds = _kill_often(link, kills, kill, tmp_path / "go")
    numbers(master_kills=kills, lines=_ended_well(link), seconds=[round(seconds, 1)])


def test_r54_no_line_is_lost_or_doubled_when_the_agent_is_killed(
    linked: tuple[Linked, AgentProcess], kills: int, tmp_path: Path, numbers: Callable[..., None]
) -> None:
    link, agent = linked

    def kill() -> None:
        assert agent.process is not None
        agent.process.kill()
        agent.process.wait()
        agent.spawn()

    seconds = _kill_often(link, kills, kill, tmp_path / "go")
    numbers(agent_kills=kills, lines=_ended_well(link), seconds=[round(seconds, 1)])
