"""A host that can be looked at: its file, its directories, its master."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from keepflow.agent.doctor import host_file
from keepflow.agent.doctor.patient import Patient
from keepflow.agent.state import State
from tests.fakes import FakeMaster, serve_master


@pytest.fixture
def known_master() -> Iterator[FakeMaster]:
    """A master that agents may join."""
    with serve_master() as found:
        yield found


@pytest.fixture
def make_patient(tmp_path: Path, known_master: FakeMaster) -> Callable[..., Patient]:
    """Make a host of the master whose agent.yml has these keys too."""

    def make(*, before_join: bool = False, **keys: Any) -> Patient:
        config = tmp_path / "agent.yml"
        base = {
            "master": known_master.url,
            "capabilities": ["deploy"],
            "nginx": {"mode": "none"},
            "docker": {"host": f"unix://{tmp_path}/no-engine.sock"},
        }
        config.write_text(json.dumps({**base, **keys}))
        file, found = host_file.read(config)
        assert file is not None, found
        return Patient(config, file, State(tmp_path / "lib" / "agent"), before_join=before_join)

    return make
