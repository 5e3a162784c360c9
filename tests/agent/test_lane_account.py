"""A lane whose tree belongs to the jobs' account: root never works in it, and the account changes nothing beside it."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from keepflow import errors
from keepflow.tools import processes
from keepflow.tools.git import Lane
from tests.tools.repositories import bare, commit

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
NOBODY = (65534, 65534)


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that other accounts may enter."""
    found = Path(tempfile.mkdtemp(dir="/var/tmp", prefix="kf-test-"))
    found.chmod(0o711)
    yield found
    shutil.rmtree(found)


@pytest.fixture
def lane(place: Path) -> Lane:
    return Lane(place / "git", place / "work", NOBODY)


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    return bare(tmp_path / "origin.git")


def move(lane: Lane, origin: Path, sha: str) -> None:
    lane.update(str(origin), sha, allow_local=True)
    lane.checkout(sha)


def as_nobody(*argv: str) -> int:
    return processes.run(argv, timeout=10, check=False, account=NOBODY).exit_code


def test_git_works_in_the_tree_as_the_account_and_never_as_root(
    lane: Lane, origin: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link that a process of the account swaps in while root writes there would make the account root (T17)."""
    said = place / "said"
    said.touch()
    said.chmod(0o666)
    programs = place / "bin"
    programs.mkdir(mode=0o755)
    spy = programs / "git"
    spy.write_text(f'#!/bin/sh\necho "$(id -u) $(id -G) $1" >>{said}\nexec {shutil.which("git")} "$@"\n')
    spy.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    move(lane, origin, commit(origin, {"a": "1", "dir/b": "1"}))
    move(lane, origin, commit(origin, {"a": "2"}))
    ran = said.read_text().split("\n")[:-1]
    assert ran == [
        "0 0 init",
        "0 0 fetch",
        "65534 65534 read-tree",
        "65534 65534 clean",
        "0 0 fetch",
        "65534 65534 read-tree",
        "65534 65534 clean",
    ]


def test_the_account_owns_the_tree_and_gets_it_clean_again(lane: Lane, origin: Path) -> None:
    sha = commit(origin, {"a": "1", "dir/b": "1"})
    move(lane, origin, sha)
    assert {os.lstat(path).st_uid for path in (lane.work_tree, *lane.work_tree.rglob("*"))} == {65534}
    assert as_nobody("sh", "-c", f"cd {lane.work_tree} && echo 9 >a && rm -r dir && mkdir x && ln -s /etc y") == 0
    move(lane, origin, sha)
    assert sorted(path.name for path in lane.work_tree.rglob("*")) == ["a", "b", "dir"]
    assert (lane.work_tree / "a").read_text() == "1"


def test_the_account_can_change_nothing_that_root_reads_later(lane: Lane, origin: Path, place: Path) -> None:
    sha = commit(origin, {"a": "1"})
    move(lane, origin, sha)
    for target in ("git/config", "git/HEAD", "git/index", "git/new", "git/refs/new", "git/objects/new", "new"):
        assert as_nobody("sh", "-c", f"echo x >>{place}/{target}") != 0, target
    assert as_nobody("ls", str(lane.git_dir)) != 0
    assert sorted(path.name for path in place.iterdir()) == ["git", "work"]  # the handed-out index is gone


def test_an_index_that_became_something_else_is_not_read(
    lane: Lane, origin: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = place / "bin"
    programs.mkdir(mode=0o755)
    real = shutil.which("git")
    swap = '[ "$1" != clean ] || { rm -f "$GIT_INDEX_FILE"; ln -s /etc/shadow "$GIT_INDEX_FILE"; }'
    (programs / "git").write_text(f'#!/bin/sh\n{real} "$@" || exit\n{swap}\n')
    (programs / "git").chmod(0o755)
    move(lane, origin, commit(origin, {"a": "1"}))
    before = (lane.git_dir / "index").read_bytes()
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    with pytest.raises(errors.CommandFailed, match="index"):
        move(lane, origin, commit(origin, {"a": "2"}))
    assert (lane.git_dir / "index").read_bytes() == before


def test_a_program_of_another_account_is_in_none_of_roots_groups() -> None:
    done = processes.run(["id", "-G"], timeout=10, account=NOBODY)
    assert done.text.split() == ["65534"]
    assert subprocess.run(["id", "-u"], capture_output=True, text=True, check=True).stdout.strip() == "0"
