"""The two long-running processes of a world: started in the background, watched, stopped, killed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.real.waiting import Hopeless, wait_until


class Running:
    """One background process with its log file."""

    def __init__(self, what: str, log: Path) -> None:
        self.what = what
        self.log = log
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process's number; RuntimeError when it does not run."""
        if self.process is None or self.process.poll() is not None:
            raise RuntimeError(f"{self.what} does not run; its log ends with:\n{self.last_words()}")
        return self.process.pid

    def wait_ready(self, ready: Callable[[], object], seconds: float) -> None:
        """Wait until it is ready; a process that ends instead is told at once, with its last words."""

        def look() -> object:
            if self.process is not None and self.process.poll() is not None:
                raise Hopeless(f"{self.what} ended with {self.process.returncode}:\n{self.last_words()}")
            return ready()

        wait_until(look, seconds, f"{self.what} being ready")

    def last_words(self) -> str:
        """Return the end of its log."""
        return self.log.read_text(errors="replace")[-2000:] if self.log.exists() else ""

    def stop(self, seconds: float = 15) -> int:
        """Ask it to end, as systemd would; return its exit status."""
        return self._end(signal.SIGTERM, seconds)

    def kill(self) -> None:
        """Kill it in the middle of whatever it does."""
        self._end(signal.SIGKILL, 10)

    def ends(self, seconds: float) -> int:
        """Wait until it has ended by itself and return its exit status, minus the signal's number for a signal."""
        if self.process is None:
            raise RuntimeError(f"{self.what} was not started")
        process, self.process = self.process, None
        return process.wait(seconds)

    def _end(self, number: signal.Signals, seconds: float) -> int:
        if self.process is None:
            return 0
        process, self.process = self.process, None
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            raise TimeoutError(f"{self.what} did not end within {seconds:g} s after {number.name}") from None


def memory(pid: int) -> float:
    """Return the resident memory of a process in MB."""
    status = Path(f"/proc/{pid}/status").read_text()
    kilobytes = next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(kilobytes) / 1000
