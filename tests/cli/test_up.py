"""`keepflow up`, `down` and `status` as processes: the master and the agent beside it live and end together."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from keepflow.agent.state import State
from keepflow.config.home import Home
from tests.processes import MasterProcess
from tests.real.parts import need
from tests.real.waiting import free_port, wait_until

pytestmark = pytest.mark.real
AGENT_FILE = """
master: {url}
capabilities: [run]
nginx: {{mode: none}}
"""


@pytest.fixture
def both(tmp_path: Path) -> Iterator[MasterProcess]:
    """A master with its agent, started; nothing of either is left afterwards."""
    need("docker")
    found = _both(tmp_path / "home")
    yield found.start()
    found.close()
    holder = _agent_of(found).holder()
    if holder:
        os.kill(holder, signal.SIGKILL)


def _both(home: Path) -> MasterProcess:
    found = MasterProcess(home, verb="up")
    home.mkdir(mode=0o700)
    (home / "local-agent.yml").write_text(AGENT_FILE.format(url=found.url))
    return found


def _agent_of(both: MasterProcess) -> State:
    return State(Home.at(both.home).local_agent_state())


def _online(both: MasterProcess) -> dict[str, Any] | None:
    items = both.api("GET", "/agents").json["items"]
    return next((agent for agent in items if agent["name"] == "local" and agent["connected"]), None)


def _cli(*argv: str, home: Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "KEEPFLOW_HOME": str(home)}
    command = [sys.executable, "-m", "keepflow.cli.main", *argv]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)


def test_the_agent_joins_by_itself_and_both_end_together(both: MasterProcess) -> None:
    wait_until(lambda: _online(both), 30, "the local agent is connected")
    assert re.search(r"http://127\.0\.0\.1:\d+/setup/\S+", both.log), "the first start prints the setup link"
    holder = _agent_of(both).holder()
    began = time.monotonic()
    assert both.stop() == 0
    assert time.monotonic() - began < 4.0
    assert _agent_of(both).holder() is None
    assert holder
    assert not Path(f"/proc/{holder}").exists()


def test_an_agent_that_dies_is_started_again(both: MasterProcess) -> None:
    wait_until(lambda: _online(both), 30, "the local agent is connected")
    first = _agent_of(both).holder()
    assert first
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: _agent_of(both).holder() not in (None, 0, first), 30, "another agent runs")
    wait_until(lambda: _online(both), 30, "the local agent is connected again")


def test_an_agent_outlives_a_killed_master_and_is_taken_over(both: MasterProcess) -> None:
    wait_until(lambda: _online(both), 30, "the local agent is connected")
    first = _agent_of(both).holder()
    both.kill()
    assert _agent_of(both).holder() == first
    both.start()
    wait_until(lambda: _online(both), 30, "the same agent is connected again")
    assert _agent_of(both).holder() == first
    assert both.stop() == 0
    wait_until(lambda: _agent_of(both).holder() is None, 10, "the agent ends with the new master")


def test_a_new_master_beside_an_old_agent_takes_it_in(both: MasterProcess) -> None:
    wait_until(lambda: _online(both), 30, "the local agent is connected")
    both.stop()
    kept = (both.home / "local-agent.yml").read_text()
    shutil.rmtree(both.home)
    both.home.mkdir(mode=0o700)
    (both.home / "local-agent.yml").write_text(kept)
    both.start()
    wait_until(lambda: _online(both), 30, "the agent has joined the new master")


def test_up_detached_status_and_down(tmp_path: Path) -> None:
    need("docker")
    home = tmp_path / "home"
    both = _both(home)
    assert _cli("status", home=home).returncode == 1
    listen = f"127.0.0.1:{both.port}"
    try:
        began = _cli("up", "--detach", "--listen", listen, home=home)
        assert began.returncode == 0, began.stderr
        told = json.loads(_cli("status", "-o", "json", home=home).stdout)
        assert (told["ready"], told["url"]) == (True, both.url)
        again = _cli("up", "--detach", "--listen", f"127.0.0.1:{free_port()}", home=home)
        assert again.returncode == 7, "a second one is refused"
        assert _cli("down", home=home).returncode == 0
        assert _cli("status", home=home).returncode == 1
        assert _cli("down", home=home).returncode == 0, "stopping twice is harmless"
    finally:
        _cli("down", home=home)
