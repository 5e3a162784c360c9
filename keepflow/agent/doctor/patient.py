"""The host that is looked at: its file, the agent's directory, and what nginx reads."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from keepflow.agent.state import Identity, State
from keepflow.config.agent_file import AgentFile


@dataclass(frozen=True, slots=True)
class Patient:
    """One host. `ca_pem` is the authority a join would pin, for a host that has not joined yet."""

    config: Path
    file: AgentFile
    state: State
    ca_pem: str = ""
    before_join: bool = False

    def identity(self) -> Identity | None:
        """Return who the agent is, or None when it has not joined; raises UsageError when that is unreadable."""
        return self.state.identity() if self.state.joined else None

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """Make an empty directory where nginx's workers pass through the same places as to the real flags."""
        with tempfile.TemporaryDirectory(dir=nearest(self.state.front_root), prefix=".keepflow-doctor-") as made:
            Path(made).chmod(0o755)
            yield Path(made)


def nearest(path: Path) -> Path:
    """Return a directory, or the nearest one above it that exists."""
    return next(place for place in (path.absolute(), *path.absolute().parents) if place.is_dir())
