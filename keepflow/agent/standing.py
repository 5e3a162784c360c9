"""How the running agent stands with its master, told to whoever asks on this host: `agent status`, `agent doctor`."""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from keepflow import errors
from keepflow.agent.state import State
from keepflow.tools.files import write_atomic


@dataclass(frozen=True, slots=True)
class Standing:
    """Whether the link is up, and a sentence; true only while an agent runs."""

    linked: bool
    sentence: str

    @classmethod
    def read(cls, state: State) -> Standing | None:
        """Return what the agent wrote last, or None when it wrote nothing yet."""
        try:
            data = json.loads(_path(state).read_bytes())
            return cls(bool(data["linked"]), str(data["sentence"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, state: State) -> None:
        """Keep it; a full disk is no reason to end an agent."""
        with contextlib.suppress(OSError, errors.OutOfSpace):
            write_atomic(_path(state), json.dumps(asdict(self)).encode(), 0o600)


def _path(state: State) -> Path:
    return state.root / "link.json"
