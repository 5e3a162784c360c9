"""A project whose repository cannot be read is said to be, before its file is applied (R75)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from keepflow.config.server_file import load_server
from keepflow.engine import apply as applying
from keepflow.engine import reachable
from keepflow.errors import ConfigError
from keepflow.wire.desired import Desired
from tests.engine.world import World
from tests.tools import repositories


def _desired(**repos: Any) -> Desired:
    default = {"forge": "github", "flow_file": ".keepflow.yml", "git_token": "a-token-nobody-may-see"}
    return Desired.model_validate({"projects": {name: {**default, "repo": str(repo)} for name, repo in repos.items()}})


def _problems(world: World, desired: Desired) -> list[str]:
    with world.read() as conn:
        return reachable.problems(conn, world.master, desired)


def test_r75_a_repository_that_cannot_be_read_is_said_with_its_project(world: World, tmp_path: Path) -> None:
    good = repositories.bare(tmp_path / "good.git")
    found = _problems(world, _desired(good=good, bad=tmp_path / "never.git"))
    assert len(found) == 1
    assert found[0].startswith("the repository of bad cannot be read: ")
    assert "nobody-may-see" not in found[0]


def test_only_what_is_new_or_read_otherwise_is_asked(world: World, tmp_path: Path) -> None:
    good = repositories.bare(tmp_path / "good.git")
    world.call(lambda tx: applying.apply(tx, world.master, _desired(shop=good), "root", 1))
    away = good.rename(tmp_path / "away.git")
    assert _problems(world, _desired(shop=good)) == [], "it is there already, and its page says what it lacks"
    assert len(_problems(world, _desired(shop=tmp_path / "elsewhere.git"))) == 1
    assert _problems(world, _desired(shop=away)) == []


def test_r75_a_name_that_is_written_twice_is_refused() -> None:
    with pytest.raises(ConfigError):
        load_server("projects:\n  a: {repo: https://h/x.git}\n  a: {repo: https://h/y.git}\n", "keepflow.yml")
