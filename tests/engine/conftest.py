"""One world per test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.world import World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A master on real parts, with nothing in it."""
    made = World(tmp_path)
    yield made
    made.close()
