"""The demo as a person starts it on a clean clone."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.real.demo.leftovers import held_by, image_of, marked, sweep_worlds
from tests.real.hosts import Engine, sweep, wait_until
from tests.real.leftovers import STATE
from tests.real.load_process import ROOT
from tests.real.parts import need, need_root

DEMO = ROOT / "scripts" / "demo.sh"


@pytest.mark.real
def test_the_demo_verifies_its_own_claims() -> None:
    need("docker", "dockerd", "docker-registry", "nginx", "iptables", "ip", "ss", "nsenter", "git")
    need_root()
    done = subprocess.run([str(DEMO), "--check"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert (told["ok"], told["broken"], told["failed_requests"]) == (True, [], 0)
    assert told["requests"] > 1000
    assert {"push_to_dev", "push_to_test", "promote"} <= told["seconds"].keys()


@pytest.mark.real
def test_a_killed_demo_leaves_nothing_that_the_next_one_does_not_remove(engine: Engine, tmp_path: Path) -> None:
    need("docker", "dockerd", "docker-registry", "nginx", "iptables", "ip", "ss", "nsenter", "git")
    need_root()
    said = tmp_path / "said"
    with said.open("w") as output:
        demo = subprocess.Popen(
            [sys.executable, "-m", "tests.real.demo"], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        wait_until(lambda: "live in" in said.read_text(), 120, "the first push being live")
    finally:
        demo.kill()
        demo.wait(10)
    [name] = re.findall(r"world-[0-9a-f]{4}", said.read_text())[:1]
    directory = STATE / name
    assert marked(name)
    assert all(held_by(engine, image_of(directory)).values())
    assert name in sweep_worlds()
    sweep()
    assert not marked(name)
    assert not any(held_by(engine, image_of(directory)).values())
    assert not directory.exists()


def test_without_root_it_says_what_it_needs(tmp_path: Path) -> None:
    need("docker", "dockerd", "docker-registry", "nginx", "iptables", "ip", "ss", "nsenter", "git", "busybox")
    (tmp_path / "id").write_text("#!/bin/sh\necho 1000\n")
    (tmp_path / "id").chmod(0o755)
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run([str(DEMO), "--check"], env=env, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout) == (1, "")
    assert "needs root" in done.stderr


def test_wrong_arguments_show_the_usage() -> None:
    done = subprocess.run([str(DEMO), "--chek"], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: demo.sh")
