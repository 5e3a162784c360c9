"""`keepflow up` with one project whose flows the test writes: a real master, a real agent, real git, no containers."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from keepflow.agent.state import State
from keepflow.config.home import Home
from tests.processes import MasterProcess
from tests.real.waiting import wait_until
from tests.tools.repositories import bare, commit

PROJECT = "shop"
_AGENT = "master: {url}\ncapabilities: [run]\njobs: {jobs}\nnginx: {{mode: none}}\n"


class Up:
    """Both processes; `jobs` script jobs run at once."""

    def __init__(self, place: Path, jobs: int = 4) -> None:
        self.repository = bare(place / "shop.git")
        self.master = MasterProcess(place / "home", verb="up")
        self.master.home.mkdir(mode=0o700)
        agent = self.master.home / "local-agent.yml"
        agent.write_text(_AGENT.format(url=self.master.url, jobs=jobs))

    def start(self) -> Up:
        """Start them and return when the agent is connected."""
        self.master.start()
        self.master.apply({PROJECT: {"repo": str(self.repository)}})
        wait_until(self._online, 30, "the local agent is connected")
        return self

    def close(self) -> None:
        """End both, however."""
        self.master.close()
        holder = State(Home.at(self.master.home).local_agent_state()).holder()
        if holder:
            os.kill(holder, signal.SIGKILL)

    def run(self, text: str, flow: str, files: dict[str, str | bytes | None] | None = None) -> dict[str, Any]:
        """Commit a flow file, start one of its flows by hand, and return the run when it has ended."""
        return self.ended(self.begin(text, flow, files))

    def begin(self, text: str, flow: str, files: dict[str, str | bytes | None] | None = None) -> int:
        """Commit a flow file, start one of its flows by hand, and return the number of the run."""
        commit(self.repository, {".keepflow.yml": text, **(files or {})})
        reply = self.master.api("POST", f"/projects/{PROJECT}/runs", {"flow": flow, "ref": "master"})
        assert reply.status == 202, reply.body
        return int(reply.json["run"])

    def ended(self, number: int, seconds: float = 60, every: float = 0.02) -> dict[str, Any]:
        """Wait for the end of a run, asking `every` so many seconds, and return it with its jobs, by key."""

        def has_ended() -> bool:
            newest = self.master.api("GET", f"/projects/{PROJECT}/runs?limit=10").json["items"]
            return any(run["number"] == number and run["finished_at"] for run in newest)

        wait_until(has_ended, seconds, f"the end of run {number}", every)
        run: dict[str, Any] = self.master.api("GET", f"/projects/{PROJECT}/runs/{number}").json
        return {**run, "jobs": {job["key"]: job for job in run["jobs"]}}

    def log(self, number: int) -> str:
        """Return the whole log of a run."""
        return self.master.get(
            f"/api/v1/projects/{PROJECT}/runs/{number}/log", {"Authorization": f"Bearer {self.master.admin_token}"}
        ).body.decode()

    def _online(self) -> bool:
        return any(agent["connected"] for agent in self.master.api("GET", "/agents").json["items"])
