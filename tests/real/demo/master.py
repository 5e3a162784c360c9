"""`keepflow up`: the master with its local agent, and its API as the command line uses it."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from keepflow.cli.client import Client
from keepflow.cli.places import Server
from tests.real.demo.commands import Keepflow
from tests.real.demo.files import PROJECT
from tests.real.demo.processes import Running
from tests.real.waiting import wait_until

ENDED = ("succeeded", "failed", "cancelled", "skipped", "superseded", "lost")
_LOOK_EVERY = 0.1  #: seconds between two questions to the API: who asks more takes time from what is measured


class Master(Running):
    """The master of a world."""

    def __init__(self, keepflow: Keepflow, home: Path, url: str, log: Path) -> None:
        super().__init__("keepflow up", log)
        self.home = home
        self.url = url
        self._keepflow = keepflow
        self._client: Client | None = None

    def start(self) -> float:
        """Start it and wait until it and its local agent are there; return the seconds until it was ready."""
        began = time.monotonic()
        listen = self.url.removeprefix("http://")
        self.process = self._keepflow.start("up", "--listen", listen, log=self.log)
        self.wait_ready(lambda: (self.home / "master.json").exists(), 30)
        ready = time.monotonic() - began
        token = (self.home / "admin.token").read_text().strip()
        self._client = Client(Server(self.url, token, "the world's own token", local=True))
        self.wait_ready(lambda: self.online("local"), 30)
        return ready

    @property
    def setup_link(self) -> str:
        """The one-time link that it printed for the first admin, "" when it printed none."""
        found = re.search(r"https?://\S+/setup/[\w.-]+", self.log.read_text(errors="replace"))
        return found[0] if found else ""

    # --- asking it ----------------------------------------------------------------------------------------------------

    @property
    def api(self) -> Client:
        """The API, as the admin of this machine."""
        if self._client is None:
            raise RuntimeError("the master was not started")
        return self._client

    def online(self, agent: str) -> bool:
        """Say whether it has a link with an agent."""
        return any(one["name"] == agent and one["connected"] for one in self.api.get("/agents")["items"])

    def runs(self, **filters: Any) -> list[dict[str, Any]]:
        """Return the newest runs of the project, newest first."""
        found: list[dict[str, Any]] = self.api.get(f"/projects/{PROJECT}/runs", **filters)["items"]
        return found

    def run_of(self, sha: str, seconds: float = 15) -> dict[str, Any]:
        """Wait for the run of a commit and return it."""
        return wait_until(
            lambda: next((run for run in self.runs() if run["sha"] == sha), None),
            seconds,
            f"a run of {sha[:10]}",
            every=_LOOK_EVERY,
        )

    def went_wrong(self, sha: str) -> str:
        """Say how the run of a commit failed, with its last lines; "" while it has not."""
        return next((self.bad_end(run["number"]) for run in self.runs() if run["sha"] == sha), "")

    def bad_end(self, number: int) -> str:
        """Say how a run failed, with its last lines; "" while it has not."""
        run = self.run(number)
        if run["state"] not in ENDED or run["state"] == "succeeded":
            return ""
        return f"{PROJECT}#{number} {run['state']}: {run['reason']}\n{self.log_of(number)[-1500:]}"

    def run(self, number: int) -> dict[str, Any]:
        """Return one run with jobs, steps and releases."""
        return self.api.get(f"/projects/{PROJECT}/runs/{number}")

    def ended(self, number: int, seconds: float = 60) -> dict[str, Any]:
        """Wait until a run has ended and return it."""
        return self.becomes(number, lambda run: run["state"] in ENDED, seconds, "ended")

    def becomes(
        self, number: int, condition: Callable[[dict[str, Any]], object], seconds: float, what: str
    ) -> dict[str, Any]:
        """Wait until something is true of a run and return it; the error tells how it is instead."""
        seen: dict[str, Any] = {}

        def look() -> bool:
            seen.update(self.run(number))
            return bool(condition(seen))

        try:
            wait_until(look, seconds, f"{PROJECT}#{number}: {what}", every=_LOOK_EVERY)
        except TimeoutError as error:
            raise TimeoutError(f"{error}; it is {json.dumps(seen)[:3000]}") from None
        return seen

    def deployment(self, number: int) -> dict[str, Any]:
        """Return the deployment that a run carries out; LookupError while it has none."""
        found = [job["deployment"] for job in self.run(number)["jobs"] if job["deployment"]]
        if not found:
            raise LookupError(f"{PROJECT}#{number} has no deployment")
        first: dict[str, Any] = found[0]
        return first

    def environment(self, name: str) -> dict[str, Any]:
        """Return one card of the board."""
        cards = self.api.get(f"/projects/{PROJECT}/environments")["items"]
        return next(card for card in cards if card["name"] == name)

    def log_of(self, number: int) -> str:
        """Return the whole log of a run."""
        return b"".join(self.api.text(f"/projects/{PROJECT}/runs/{number}/log")).decode(errors="replace")


def end_of(deployment: dict[str, Any]) -> str:
    """Return how a deployment ended in one line: `done`, or the phase and the reason, which a failed test tells."""
    phase = str(deployment["phase"])
    return phase if phase == "done" else f"{phase}, {deployment['reason_code']}: {deployment['reason']}"
