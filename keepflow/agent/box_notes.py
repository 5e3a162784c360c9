"""What a job has come to on the engine and on other hosts, on the disk of its attempt: known to who takes it up."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


class Notes:
    """Facts by name, each noted before what it says is done or told. Made anew they are what an earlier process wrote.

    They are not synced: after a power cut there is nothing left to take up.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._facts: dict[str, Any] = {}
        for line in path.read_text().split("\n")[:-1] if path.exists() else ():
            self._facts.update(json.loads(line))

    def get(self, name: str) -> Any:
        """Return what was noted, or None."""
        return self._facts.get(name)

    def put(self, name: str, fact: Any) -> None:
        """Note a fact that JSON can hold; the newest of a name counts."""
        self._facts[name] = fact
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, json.dumps({name: fact}).encode() + b"\n")
        finally:
            os.close(descriptor)
