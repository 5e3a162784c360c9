"""`keepflow run FLOW`: at a branch and a commit, by default the main one and its newest (R09)."""

from __future__ import annotations

from pathlib import Path

import pytest

from keepflow.store import projects
from tests.cli.conftest import Keepflow
from tests.tools import repositories
from tests.web.story import Story

FLOW = "version: 1\nflows: {check: {on: {manual: true}, steps: [{run: make}]}}\n"


@pytest.fixture
def repository(told: tuple[str, Story], tmp_path: Path) -> Path:
    """The repository of keepwork, where it can be read."""
    made = repositories.bare(tmp_path / "keepwork.git")
    told[1].write(lambda tx: projects.change(tx.conn, told[1].project().id, repo=str(made)))
    return made


def test_r09_a_flow_is_started_with_branch_and_commit(keepflow: Keepflow, repository: Path) -> None:
    old = repositories.commit(repository, {".keepflow.yml": FLOW}, "first", "main")
    new = repositories.commit(repository, {"n": "2"}, "second", "main")

    def started(*more: str) -> str:
        said = keepflow("run", "check", "-P", "keepwork", *more)
        assert said.code == 0, said.err
        return str(keepflow("show", said.out.strip(), "-o", "json").json["sha"])

    assert (started(), started("--ref", "main")) == (new, new)
    assert (started("--ref", "main", "--commit", old), started("--commit", old[:8])) == (old, old)
    wrong = keepflow("run", "check", "-P", "keepwork", "--commit", "f" * 40)
    assert (wrong.code, "[no-commit]" in wrong.err) == (1, True)
