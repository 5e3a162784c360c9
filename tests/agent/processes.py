"""A real `keepflow agent run` against the fake master, with a real repository behind it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from keepflow.executors.shell import end_marked
from keepflow.wire import messages
from tests.agent.test_attempts import order
from tests.fakes import FakeMaster
from tests.real.waiting import wait_until


class MasterSide(Protocol):
    """What an agent's process needs of a master."""

    @property
    def url(self) -> str: ...

    @property
    def connected(self) -> bool: ...

    def token(self, agent: str, /) -> str:
        """Make a join token."""


@dataclass
class AgentProcess:
    """One agent: its directory, its file, and its process while it runs."""

    master: MasterSide
    root: Path
    name: str = "build-1"
    file: str = "capabilities: [run]\n"
    env: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    @property
    def state(self) -> Path:
        return self.root / "agent"

    def cli(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run `keepflow agent …` to its end."""
        return subprocess.run(
            self._argv(*arguments), input=stdin, env=self._env, capture_output=True, text=True, timeout=60, check=False
        )

    def join(self) -> None:
        """Join the master."""
        done = self.cli("join", self.master.url, stdin=self.master.token(self.name))
        assert done.returncode == 0, done.stderr

    def start(self) -> None:
        """Start the process and wait until it is linked."""
        self.spawn()
        wait_until(lambda: self.master.connected, 20, f"the link of {self.name}: {self.log}")

    def spawn(self) -> subprocess.Popen[bytes]:
        """Start the process."""
        if not self.state.exists():
            self.join()
        self.config.write_text(f"master: {self.master.url}\n{self.file}")
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                self._argv("run", "--config", str(self.config)), env=self._env, stdout=log, stderr=log
            )
        return self.process

    @property
    def config(self) -> Path:
        return self.root / "agent.yml"

    @property
    def log_file(self) -> Path:
        return self.root / "agent.log"

    @property
    def log(self) -> str:
        """What the agent said of itself so far."""
        return self.log_file.read_text() if self.log_file.exists() else ""

    def kill(self) -> None:
        """End it as a crash does."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        wait_until(lambda: not self.master.connected, 10, "the end of the link")

    def stop(self) -> int:
        """End it as systemd does; returns the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)

    def close(self) -> None:
        """End it and its jobs, in whatever state it is."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for attempt in self.state.glob("attempts/*/attempt.json"):
            end_marked(json.loads(attempt.read_text())["mark"], 0)

    @property
    def _env(self) -> dict[str, str]:
        return {**os.environ, "KEEPFLOW_AGENT_STATE": str(self.state), **self.env}

    @staticmethod
    def _argv(*arguments: str) -> list[str]:
        return [sys.executable, "-m", "keepflow.cli.main", "agent", *arguments]


def number_in(path: Path) -> int:
    """Return the last number a job wrote to a file, as a whole line."""
    return int(wait_until(lambda: path.read_text().rpartition("\n")[0].split()[-1], 20, f"a number in {path.name}"))


def job(fence: int, sha: str, scripts: Sequence[str], **more: Any) -> messages.RunJob:
    """Return an order whose steps are `run:` scripts."""
    steps = tuple(messages.StepOrder(kind="run", name=script, spec={"script": script}) for script in scripts)
    return order(fence, **{"sha": sha, "steps": steps, **more})


@dataclass(frozen=True)
class Ran:
    """A job that has ended, with everything that was said of it."""

    fence: int
    end: messages.JobFinished
    log: str
    reports: list[messages.ReportBody]


@dataclass
class Builder:
    """A running agent that many tests give jobs to."""

    master: FakeMaster
    agent: AgentProcess
    sha: str
    last: int = 0

    def send(self, *scripts: str, **more: Any) -> int:
        """Send a job and return its fence."""
        self.last += 1
        self.master.send(job(self.last, more.pop("sha", self.sha), scripts, **more))
        return self.last

    def run(self, *scripts: str, **more: Any) -> Ran:
        """Run a job to its end."""
        return self.result(self.send(*scripts, **more))

    def stop(self, fence: int, grace: float = 2.0) -> None:
        """Stop a job as a person does."""
        self.master.send(messages.StopJob(fence=fence, code="cancelled", sentence="cancelled by ann", grace=grace))

    def result(self, fence: int) -> Ran:
        """Wait for the end of a job."""
        end = self.master.await_report(messages.JobFinished, fence)
        log = self.master.await_whole_log(fence)
        reports = [body for _, body in sorted(self.master.reports.items()) if body.fence == fence]
        assert not self.master.log_gaps
        return Ran(fence, end, log, reports)
