"""The host's own file as it is now: read again whenever it changed, and the last good one kept when it is wrong."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from keepflow import errors
from keepflow.agent.logs import Log
from keepflow.config.agent_file import AgentFile, load_agent

log = Log(__name__)


class HostFile:
    """`agent.yml`. Whoever asks gets what the file said at its last good reading."""

    def __init__(self, path: Path) -> None:
        """Read the file; raises ConfigError with every problem, and UsageError when it cannot be read."""
        self.path = path
        self._lock = threading.Lock()
        self._stamp = self._look()
        self._file = self._read()
        self.problem = ""  #: why the newest text of the file is not in force, "" when it is

    def now(self) -> AgentFile:
        """Return what is in force, after a look whether the file changed."""
        with self._lock:
            stamp = self._look()
            if stamp is not None and stamp != self._stamp:
                self._stamp = stamp
                self._reread()
            return self._file

    def _reread(self) -> None:
        try:
            self._file = self._read()
        except errors.KeepflowError as error:
            self.problem = f"{self.path} was changed and is wrong; the one from before stays in force: {error.message}"
            log.warning("agent.yml is wrong", problem=error.message)
        else:
            self.problem = ""
            log.info("agent.yml was read again", path=str(self.path))

    def _look(self) -> tuple[int, int, int] | None:
        try:
            seen = os.stat(self.path)  # noqa: PTH116 - called often
        except OSError:
            return None
        return seen.st_mtime_ns, seen.st_size, seen.st_ino

    def _read(self) -> AgentFile:
        try:
            text = self.path.read_bytes()
        except OSError as error:
            raise errors.UsageError(
                f"{self.path}: cannot be read ({error.strerror}); copy agent.example.yml there, or name another file",
                code="no-config",
            ) from None
        return load_agent(text, str(self.path))
