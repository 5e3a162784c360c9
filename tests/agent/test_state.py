"""An agent's directory belongs to one process, and says who the agent is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from keepflow import errors
from keepflow.agent.state import Identity, State
from keepflow.crypto import keys
from tests.real.waiting import wait_until

HOLD = """
import pathlib, sys, time
from keepflow.agent.state import State
State(pathlib.Path(sys.argv[1])).claim()
print(1, flush=True)
time.sleep(60)
"""


def test_a_second_holder_is_refused_and_told_who_holds_it(tmp_path: Path) -> None:
    first, second = State(tmp_path / "agent"), State(tmp_path / "agent")
    first.claim()
    with pytest.raises(errors.Refused, match=f"process {os.getpid()}") as caught:
        second.claim()
    assert (caught.value.code, caught.value.exit_code) == ("agent-running", 7)
    assert second.holder() == os.getpid()
    first.release()
    second.claim()


def test_the_claim_dies_with_its_process(tmp_path: Path) -> None:
    root = tmp_path / "agent"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(root)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"1\n"
        assert State(root).holder() == holder.pid
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    assert State(root).holder() is None
    wait_until(lambda: State(root).claim() is None, 5, "the claim of a directory whose holder died")


def test_the_directory_is_for_nobody_else(tmp_path: Path) -> None:
    state = State(tmp_path / "agent")
    state.claim()
    state.key()
    state.save_identity(Identity("prod-1", "https://ci.example.org", (keys.generate().public,)))
    assert state.root.stat().st_mode & 0o777 == 0o700
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in state.root.iterdir())


def test_the_key_is_made_once(tmp_path: Path) -> None:
    state = State(tmp_path / "agent")
    state.claim()
    assert state.key().public == state.key().public == State(tmp_path / "agent").key().public


def test_the_identity_comes_back(tmp_path: Path) -> None:
    state = State(tmp_path / "agent")
    state.claim()
    identity = Identity("prod-1", "https://ci.example.org", (keys.generate().public,), "PEM")
    state.save_identity(identity)
    assert State(tmp_path / "agent").identity() == identity


def test_an_agent_without_a_master_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(errors.UsageError, match="keepflow agent join"):
        State(tmp_path).identity()


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"agent": "a", "url": "u", "order_keys": ["x"]}'])
def test_a_damaged_identity_is_an_error_that_names_the_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "identity.json").write_text(text)
    with pytest.raises(errors.UsageError, match=r"identity\.json"):
        State(tmp_path).identity()


def test_a_directory_that_cannot_be_made_is_an_error_that_names_the_option(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(errors.UsageError, match="--state"):
        State(tmp_path / "file" / "agent").claim()
