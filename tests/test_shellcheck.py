"""Every shell script of the repository is clean, stops at its first error, and can be started."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.real.parts import need

ROOT = Path(__file__).parent.parent
SHEBANGS = (b"#!/bin/sh", b"#!/bin/bash", b"#!/usr/bin/env sh", b"#!/usr/bin/env bash")


def shell_scripts() -> list[str]:
    """Return every tracked or new file of the repository that is a shell script, by its shebang or its name."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    found = []
    for name in listed.stdout.decode().split("\0"):
        path = ROOT / name
        if name and path.is_file():
            with path.open("rb") as file:
                if name.endswith(".sh") or file.readline().rstrip().startswith(SHEBANGS):
                    found.append(name)
    return sorted(found)


def test_the_scripts_are_found() -> None:
    assert {".ci/run", "scripts/build-image.sh", "scripts/restart-server.sh", "scripts/test.sh"} <= set(shell_scripts())


@pytest.mark.parametrize("script", shell_scripts())
def test_shellcheck_has_nothing_to_say_about(script: str) -> None:
    need("shellcheck")
    done = subprocess.run(["shellcheck", "--external-sources", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("script", shell_scripts())
def test_a_script_stops_at_its_first_error_and_can_be_started(script: str) -> None:
    lines = (ROOT / script).read_text().splitlines()
    assert any(line.startswith("set -eu") for line in lines), f"{script} must say set -eu"
    assert os.access(ROOT / script, os.X_OK), f"{script} must be executable"
