"""install-parts.sh and test.sh where something is missing: they say exactly what, and how to get it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TOOLS = ("sh", "grep", "ls", "cat", "dirname", "rm", "chmod")


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A folder of programs, to be the whole PATH, with nothing but what every system has."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in TOOLS:
        (folder / tool).symlink_to(str(shutil.which(tool)))
    stand_in(folder, "id", "echo 1000")
    return folder


def stand_in(folder: Path, name: str, script: str) -> None:
    """Put a program of a few shell lines into a folder."""
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def run(script: str, *argv: str, path: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a script of the project with nothing but these programs."""
    return subprocess.run(
        [str(ROOT / "scripts" / script), *argv],
        env={"PATH": str(path), **env},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_an_unknown_part_shows_the_usage(bare: Path) -> None:
    done = run("install-parts.sh", "everything", path=bare)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: install-parts.sh")


def test_a_part_that_is_there_is_not_installed_again(bare: Path) -> None:
    stand_in(bare, "shellcheck", "exit 0")
    stand_in(bare, "apt-get", "exit 9")
    done = run("install-parts.sh", "lint", path=bare)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_without_apt_it_names_programs_and_packages(bare: Path) -> None:
    done = run("install-parts.sh", "lint", "bench", path=bare)
    assert done.returncode == 1
    assert "this system has no apt" in done.stderr
    assert "missing: shellcheck wrk\n" in done.stderr
    assert "the packages are: shellcheck wrk\n" in done.stderr


def test_without_root_it_prints_the_command_and_installs_nothing(bare: Path, tmp_path: Path) -> None:
    stand_in(bare, "apt-get", f"echo called >{tmp_path}/called")
    done = run("install-parts.sh", "bench", path=bare)
    assert done.returncode == 1
    assert "only root can install" in done.stderr
    assert "sudo apt-get update && sudo apt-get install --no-install-recommends --yes wrk\n" in done.stderr
    assert not (tmp_path / "called").exists()


def test_check_only_looks(bare: Path, tmp_path: Path) -> None:
    stand_in(bare, "id", "echo 0")
    stand_in(bare, "apt-get", f"echo called >{tmp_path}/called")
    done = run("install-parts.sh", "--check", "bench", path=bare)
    assert done.returncode == 1
    assert "missing: wrk" in done.stderr
    assert not (tmp_path / "called").exists()


def test_test_sh_fails_in_ci_when_a_part_is_missing(bare: Path) -> None:
    done = run("test.sh", path=bare, CI="true")
    assert done.returncode == 1
    assert "missing:" in done.stderr
    assert "pytest" not in done.stdout
