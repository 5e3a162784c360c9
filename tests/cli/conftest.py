"""The command line against a real server with the story in it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from keepflow.cli.main import run
from keepflow.engine import clock
from tests.web import story as stories
from tests.web.serving import served
from tests.web.story import HOUR, Story


@dataclass
class Said:
    """What one command line did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it printed, as data."""
        return json.loads(self.out)


Keepflow = Callable[..., Said]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The KEEPFLOW_HOME of the served master."""
    return tmp_path_factory.mktemp("cli") / "home"


@pytest.fixture(scope="module")
def told(home: Path) -> Iterator[tuple[str, Story]]:
    """A served master with the story in it, and its address."""
    with served(home, clock.now() - 5 * 24 * HOUR) as (url, story):
        stories.tell(story)
        yield url, story


@pytest.fixture
def keepflow(
    told: tuple[str, Story],  # noqa: ARG001 - the server must be there
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfdbinary: pytest.CaptureFixture[bytes],
) -> Keepflow:
    """Run one command line on the master's own machine."""
    for name in ("KEEPFLOW_URL", "KEEPFLOW_TOKEN", "KEEPFLOW_TOKEN_FILE", "KEEPFLOW_CONTEXT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KEEPFLOW_HOME", str(home))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "no-config"))

    def call(*argv: str) -> Said:
        capfdbinary.readouterr()
        code = run(list(argv))
        out, err = capfdbinary.readouterr()
        return Said(code, out.decode(), err.decode())

    return call
