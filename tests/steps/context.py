"""A step's context with a real shell behind it, or one that only records what it was asked."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from keepflow.ports import RegistryLogin, StepContext


class Bench:
    """A workspace, a log and an output file; `calls` holds every command in order."""

    def __init__(self, folder: Path, *, real: bool = False, codes: Mapping[str, int] | None = None, **env: str) -> None:
        self.calls: list[tuple[str, ...]] = []
        self.at_end: list[Sequence[str]] = []  #: what is to be run when the step ends
        self.log = folder / "log"
        self.output = folder / "output"
        self.log.touch()
        self.output.touch()
        workspace = folder / "workspace"
        workspace.mkdir()
        self._real, self._codes = real, codes or {}
        self.context = StepContext(
            workspace=workspace,
            env={"PATH": "/usr/local/bin:/usr/bin:/bin", "TMPDIR": str(folder), **env},
            output_file=self.output,
            say=self._say,
            sh=self._sh,
            at_end=self.at_end.append,
        )

    def lend(self, address: str, *repositories: str) -> None:
        """Lend a login to the job."""
        login = RegistryLogin(address, "push", "secret-password", repositories=repositories)
        self.context.registries = {**self.context.registries, address: login}

    @property
    def said(self) -> str:
        """The job's log."""
        return self.log.read_text()

    def _say(self, text: str) -> None:
        with self.log.open("a") as file:
            file.write(text)

    def _sh(self, argv: Sequence[str], more: Mapping[str, str]) -> int:
        self.calls.append(tuple(argv))
        if not self._real and argv[0] == "docker":
            return self._codes.get(argv[1], 0)
        with self.log.open("ab") as file:
            return subprocess.run(
                list(argv),
                cwd=self.context.workspace,
                env={**self.context.env, **more},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                timeout=300,
            ).returncode
