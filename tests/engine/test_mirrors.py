"""A storm of hooks about one push asks the remote once, and never trusts a hook more than the remote."""

from __future__ import annotations

from pathlib import Path

import pytest

from keepflow.crypto.vault import Vault
from keepflow.engine.mirrors import Mirrors
from keepflow.store.projects import Project
from tests.real.sample import commit, git

REF = "refs/heads/main"


@pytest.fixture
def work(tmp_path: Path) -> Path:
    work = tmp_path / "work"
    work.mkdir()
    git(work, "init", "--quiet", "--initial-branch=main")
    (work / "a").write_text("1")
    commit(work, "One")
    return work


@pytest.fixture
def project(work: Path) -> Project:
    return Project(
        id=1,
        name="shop",
        repo=str(work),
        forge="bare",
        flow_file=".keepflow.yml",
        images=(),
        submodules=(),
        hook_secret=None,
        hook_secret_made=False,
        git_token=None,
        status=None,
        git_ssh_key_file=None,
        git_known_hosts_file=None,
        next_number=1,
        served=0,
        managed=True,
        paused_by=None,
        paused_why=None,
        paused_at=None,
        removed_at=None,
        created_at=0,
    )


@pytest.fixture
def mirrors(tmp_path: Path) -> Mirrors:
    (tmp_path / "home").mkdir()
    return Mirrors(tmp_path / "home", Vault.open(tmp_path / "home" / "key", create=True))


def test_a_hook_that_came_before_the_last_fetch_needs_no_fetch_of_its_own(
    mirrors: Mirrors, project: Project, work: Path
) -> None:
    told_at, sha = 1, git(work, "rev-parse", "HEAD")
    assert mirrors.fetch_told(project, REF, sha, told_at, told_at + 1).head == sha
    (work / "a").write_text("2")
    commit(work, "Two")
    assert mirrors.fetch_told(project, REF, sha, told_at, told_at + 2).head == sha, (
        "the fetch above answered this hook as well"
    )


def test_a_hook_that_came_after_the_last_fetch_asks_the_remote(mirrors: Mirrors, project: Project, work: Path) -> None:
    sha = git(work, "rev-parse", "HEAD")
    mirrors.fetch_told(project, REF, sha, 1, 2)
    (work / "a").write_text("2")
    newer = commit(work, "Two")
    assert mirrors.fetch_told(project, REF, sha, 3, 4).head == newer


def test_a_hook_that_names_another_commit_asks_the_remote_whatever_the_clock_says(
    mirrors: Mirrors, project: Project, work: Path
) -> None:
    mirrors.fetch_told(project, REF, git(work, "rev-parse", "HEAD"), 5, 6)
    (work / "a").write_text("2")
    newer = commit(work, "Two")
    assert mirrors.fetch_told(project, REF, newer, 1, 2).head == newer
