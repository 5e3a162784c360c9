"""A master with several agents, each its own process and place, with the labels the test gives it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.agent.processes import AgentProcess
from tests.processes import MasterProcess
from tests.real.waiting import wait_until
from tests.tools.repositories import bare, commit

PROJECT = "shop"


class OneOf:
    """The master as one of its agents' processes sees it; fits `AgentProcess.master`."""

    def __init__(self, master: MasterProcess, name: str) -> None:
        self._master, self._name = master, name

    @property
    def url(self) -> str:
        return self._master.url

    @property
    def connected(self) -> bool:
        """Whether this agent is linked."""
        found = self._master.api("GET", "/agents").json["items"]
        return any(agent["connected"] for agent in found if agent["name"] == self._name)

    def token(self, name: str) -> str:
        """Make a join token."""
        made: str = self._master.api("POST", "/agents", {"name": name}).json["token"]
        return made


class Several:
    """`agents` are names with the labels of each."""

    def __init__(self, place: Path, project: dict[str, Any] | None = None, **agents: tuple[str, ...]) -> None:
        self.place, self._project = place, project or {}
        self.repository = bare(place / "shop.git")
        self.master = MasterProcess(place / "home")
        self.master.home.mkdir(mode=0o700)
        self.agents: dict[str, AgentProcess] = {}
        for name, labels in agents.items():
            root = place / name
            root.mkdir()
            file = f"capabilities: [run]\njobs: 4\nlabels: [{', '.join(labels)}]\n"
            self.agents[name] = AgentProcess(OneOf(self.master, name), root, name, file)

    def start(self) -> Several:
        """Start all of them and return when they are connected."""
        self.master.start()
        self.master.apply({PROJECT: {"repo": str(self.repository), **self._project}})
        for agent in self.agents.values():
            agent.start()
        return self

    def close(self) -> None:
        """End all of them, however."""
        for agent in self.agents.values():
            agent.close()
        self.master.close()

    def begin(self, text: str, files: dict[str, str | bytes | None] | None = None, flow: str = "flow") -> int:
        """Commit a flow file and other files, start a flow by hand, and return the number of the run."""
        commit(self.repository, {".keepflow.yml": text, **(files or {})})
        reply = self.master.api("POST", f"/projects/{PROJECT}/runs", {"flow": flow, "ref": "master"})
        assert reply.status == 202, reply.body
        return int(reply.json["run"])

    def run(self, text: str, files: dict[str, str | bytes | None] | None = None) -> dict[str, Any]:
        """Do the same, and return the run when it has ended."""
        return self.ended(self.begin(text, files))

    def shown(self, number: int) -> dict[str, Any]:
        """Return a run with its jobs, by key."""
        run: dict[str, Any] = self.master.api("GET", f"/projects/{PROJECT}/runs/{number}").json
        return {**run, "jobs": {job["key"]: job for job in run["jobs"]}}

    def ended(self, number: int, seconds: float = 120) -> dict[str, Any]:
        """Wait for the end of a run and return it."""
        wait_until(lambda: self.shown(number)["finished_at"], seconds, f"the end of run {number}")
        return self.shown(number)

    def log(self, number: int) -> str:
        """Return the whole log of a run."""
        path = f"/api/v1/projects/{PROJECT}/runs/{number}/log"
        return self.master.get(path, {"Authorization": f"Bearer {self.master.admin_token}"}).body.decode()

    def cli(self, *arguments: str) -> str:
        """Return what a verb of the command line prints."""
        done = subprocess.run(
            [sys.executable, "-m", "keepflow.cli.main", *arguments],
            env={"KEEPFLOW_HOME": str(self.master.home), "PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout
