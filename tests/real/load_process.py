"""The load of `tests.real.load` as a test or the demo starts, watches and ends it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.real.load import REQUEST_SECONDS
from tests.real.waiting import wait_until

ROOT = Path(__file__).parent.parent.parent


class Load:
    """A load running in its own process, from `with Load(...) as load:` until `load.finish()` returns the summary."""

    def __init__(self, url: str, directory: Path, *options: str, host_header: str = "", clients: int = 40) -> None:
        """Say where to send and where to keep log and summary; `options` are more command line options."""
        directory.mkdir(parents=True, exist_ok=True)
        self.out = directory / "load.json"
        self.log = directory / "load.jsonl"
        self._said = directory / "load.stderr"
        self._argv = [sys.executable, "-m", "tests.real.load", url, "--out", str(self.out), "--clients", str(clients)]
        self._argv += ["--host-header", host_header] if host_header else []
        self._argv += options
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Load:
        """Start the clients and wait until the first answers are in."""
        self.out.unlink(missing_ok=True)
        self.log.unlink(missing_ok=True)
        with self._said.open("wb") as said:
            self._process = subprocess.Popen(
                self._argv, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True
            )
        wait_until(lambda: self.log.exists() and self.log.stat().st_size > 0, 15, "the load's first request")
        return self

    def finish(self) -> dict[str, Any]:
        """End the clients after their current request and return the summary (see `Tally.summary`)."""
        if self._process is None:
            raise RuntimeError("the load was not started")
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        self._process.wait(timeout=REQUEST_SECONDS + 10)
        if not self.out.exists():
            raise RuntimeError(f"the load ended without a summary:\n{self._said.read_text(errors='replace')[-2000:]}")
        summary: dict[str, Any] = json.loads(self.out.read_text())
        return summary

    def __enter__(self) -> Load:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(timeout=10)
