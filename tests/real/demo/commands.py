"""The `keepflow` command as a person of one world types it: with that world's home, and nothing of this account's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

#: In the environment of every process of a world; its value names the world.
MARK = "KEEPFLOW_TEST_WORLD"


class Keepflow:
    """Runs `keepflow VERB…` for one world."""

    def __init__(self, root: Path, docker_host: str) -> None:
        self.program = Path(sys.executable).with_name("keepflow")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("KEEPFLOW_", "GIT_"))}
        self.env: dict[str, str] = {
            **inherited,
            "PATH": f"{self.program.parent}:{inherited.get('PATH', os.defpath)}:/usr/local/sbin:/usr/sbin:/sbin",
            "HOME": str(root / "person"),
            "XDG_CONFIG_HOME": str(root / "person"),
            "KEEPFLOW_HOME": str(root / "home"),
            "DOCKER_HOST": docker_host,
            "DOCKER_CONFIG": str(root / "person"),
            "NO_COLOR": "1",
            MARK: root.name,
        }

    def attempt(self, *argv: str, seconds: float = 60, given: str = "") -> subprocess.CompletedProcess[str]:
        """Run `keepflow ARGV…`, with `given` on its stdin, and return the outcome, good or bad."""
        return subprocess.run(
            [str(self.program), *argv], env=self.env, input=given, capture_output=True, text=True, timeout=seconds
        )

    def __call__(self, *argv: str, seconds: float = 60, given: str = "") -> str:
        """Run `keepflow ARGV…` and return its trimmed output; RuntimeError tells what it said."""
        done = self.attempt(*argv, seconds=seconds, given=given)
        if done.returncode:
            raise RuntimeError(f"keepflow {' '.join(argv)} ended with {done.returncode}:\n{done.stderr.strip()}")
        return done.stdout.strip()

    def json(self, *argv: str, seconds: float = 60) -> Any:
        """Run `keepflow ARGV… -o json` and return what it printed."""
        return json.loads(self(*argv, "-o", "json", seconds=seconds))

    def start(
        self, *argv: str, log: Path, env: Mapping[str, str] | None = None, prefix: tuple[str, ...] = ()
    ) -> subprocess.Popen[bytes]:
        """Start `keepflow ARGV…` in a session of its own; its output is appended to `log`."""
        with log.open("ab") as output:
            return subprocess.Popen(
                [*prefix, str(self.program), *argv],
                env={**self.env, **(env or {})},
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip
