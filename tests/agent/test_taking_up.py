"""Jobs go on where they were when their agent was killed: nothing is done twice, nothing is said twice or left out."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest


@pytest.fixture(scope="module")
def lives(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What came of the same job in lives that were killed at one act each; the last one was not."""
    place = tmp_path_factory.mktemp("lives")
    done = subprocess.run([sys.executable, "-m", "tests.agent.dying", str(place)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_r54_a_job_killed_at_any_act_has_the_same_log_and_end_as_one_that_was_not(lives: list[dict[str, Any]]) -> None:
    whole = lives[-1]
    assert whole["act"] is None
    assert len(lives) > 40, "the acts were counted"
    assert whole["log"].splitlines()[-4:] == [
        "did false",
        "false went wrong",
        "── step 3/3 fourth failed: exit 1 (0.0 s)",
        "── failed: step 3/3 fourth failed with exit code 1",
    ]
    for life in lives:
        assert life["log"] == whole["log"], f"killed at act {life['act']}"
        assert life["reports"][-1] == whole["reports"][-1], f"killed at act {life['act']}"
        assert not life["raw"], "what may hold secrets is gone"


def test_r54_no_command_is_ever_run_twice_or_left_out(lives: list[dict[str, Any]]) -> None:
    assert {tuple(life["done"]) for life in lives} == {("first", "second", "third", "fourth", "false")}


def test_r54_every_step_is_reported_in_its_order_and_place(lives: list[dict[str, Any]]) -> None:
    def steps(life: dict[str, Any]) -> list[dict[str, Any]]:
        told = [body for body in life["reports"] if body["type"].startswith("step-")]
        return [body for at, body in enumerate(told) if body not in told[:at]]  # the master takes each once

    for life in lives:
        assert steps(life) == steps(lives[-1]), f"killed at act {life['act']}"
