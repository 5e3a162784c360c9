"""A fake master with a repository, and agents that are joined to it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.agent.processes import AgentProcess, Builder
from tests.fakes import FakeMaster, serve_master
from tests.tools import smart_http
from tests.tools.repositories import bare, commit

FILES: dict[str, str | bytes | None] = {"hello.txt": "hello\n", "scripts/greet.sh": 'echo "hello $1"\n'}


@contextlib.contextmanager
def running_master(place: Path) -> Iterator[tuple[FakeMaster, str]]:
    """Run a master that has one commit of code, at /git/shop, for any job token."""
    repository = bare(place / "repository")
    sha = commit(repository, FILES)
    with smart_http.serve(repository) as code, serve_master(code_url=code.url) as master:
        yield master, sha


@pytest.fixture
def master_and_sha(tmp_path: Path) -> Iterator[tuple[FakeMaster, str]]:
    """A master and the commit it has."""
    with running_master(tmp_path) as found:
        yield found


@pytest.fixture
def master(master_and_sha: tuple[FakeMaster, str]) -> FakeMaster:
    """A master for one test."""
    return master_and_sha[0]


@pytest.fixture
def sha(master_and_sha: tuple[FakeMaster, str]) -> str:
    """The commit of the master's code."""
    return master_and_sha[1]


@pytest.fixture
def make_agent(master: FakeMaster, tmp_path: Path) -> Iterator[Callable[..., AgentProcess]]:
    """Make agents of the master; they are ended with the test."""
    made: list[AgentProcess] = []

    def make(**settings: Any) -> AgentProcess:
        root = tmp_path / f"host-{len(made)}"
        root.mkdir()
        made.append(AgentProcess(master, root, **settings))
        return made[-1]

    yield make
    for agent in made:
        agent.close()


@pytest.fixture
def agent(make_agent: Callable[..., AgentProcess]) -> AgentProcess:
    """A running build agent, for one test."""
    found = make_agent()
    found.start()
    return found


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Builder]:
    """A running build agent with two slots, for all tests of a module."""
    place = tmp_path_factory.mktemp("builder")
    with running_master(place) as (master, sha):
        agent = AgentProcess(master, place, file="capabilities: [run]\njobs: 2\n")
        agent.start()
        try:
            yield Builder(master, agent, sha)
        finally:
            agent.close()
