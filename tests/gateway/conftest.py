"""A real master process per test module, with one project whose repository is a real bare one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.processes import MasterProcess
from tests.tools import repositories

FLOW = """
version: 1
flows:
  dev:
    on: {push: dev}
    steps: [{run: make}]
"""


@dataclass
class Served:
    """A running master and the repository of its project `app`."""

    master: MasterProcess
    repository: Path
    sha: str


def serve(directory: Path, **options: object) -> Served:
    """Start a master on a fresh home below a directory, with project `app`."""
    repository = repositories.bare(directory / "app.git")
    sha = repositories.commit(repository, {".keepflow.yml": FLOW, "code.py": "print(1)\n"}, ref="dev")
    master = MasterProcess(directory / "home", **options).start()  # type: ignore[arg-type]  # the fields of MasterProcess
    master.apply({"app": {"repo": str(repository)}})
    return Served(master, repository, sha)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One master for a whole module, for tests that do not hurt it."""
    found = serve(tmp_path_factory.mktemp("master"))
    yield found
    found.master.close()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Served]:
    """A master of the test's own, to be killed and starved."""
    found = serve(tmp_path)
    yield found
    found.master.close()
