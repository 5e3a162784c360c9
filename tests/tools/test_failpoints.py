"""Failpoints act only when the environment names them."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from keepflow.tools.failpoints import VARIABLE, Injected, fail
from tests.real.waiting import wait_until


def test_unarmed_it_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    fail("a.place")
    monkeypatch.setenv(VARIABLE, "another.place=raise")
    fail("a.place")


def test_armed_it_raises_or_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "one=raise,two=sleep:0.05")
    with pytest.raises(Injected, match="one"):
        fail("one")
    began = time.monotonic()
    fail("two")
    assert time.monotonic() - began >= 0.05


def test_held_it_says_so_and_waits_for_the_word_to_go_on(tmp_path: Path) -> None:
    program = "from keepflow.tools.failpoints import fail\nfail('x')\nprint('after')"
    held = subprocess.Popen(
        [sys.executable, "-c", program], env={VARIABLE: f"x=hold:{tmp_path}"}, stdout=subprocess.PIPE, text=True
    )
    wait_until((tmp_path / "x.reached").exists, 20, "the hold")
    assert held.poll() is None
    (tmp_path / "go").touch()
    assert held.communicate(timeout=20) == ("after\n", None)


def test_an_unknown_action_is_an_error_and_not_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "one=explode")
    with pytest.raises(ValueError, match="explode"):
        fail("one")


def test_kill_is_a_real_kill_9() -> None:
    program = "from keepflow.tools.failpoints import fail\nprint('before', flush=True)\nfail('x')\nprint('after')"
    done = subprocess.run([sys.executable, "-c", program], env={VARIABLE: "x=kill"}, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (-9, "before\n")
