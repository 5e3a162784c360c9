"""The production host: a machine without a way in, its own engine, its own nginx, and an agent that dials out."""

from __future__ import annotations

import secrets
from pathlib import Path

from tests.real.demo.commands import Keepflow
from tests.real.demo.doors import Door
from tests.real.demo.files import PRODUCTION_NAME
from tests.real.demo.master import Master
from tests.real.demo.processes import Running
from tests.real.hosts import SecondHost

AGENT = "prod-1"


class Production(Running):
    """The host and its agent."""

    def __init__(self, host: SecondHost, keepflow: Keepflow, master: Master, log: Path, name: str = AGENT) -> None:
        super().__init__(f"the agent {name}", log)
        self.name = name
        self.host = host
        self.door = Door(f"http://{host.address}", PRODUCTION_NAME)
        self._keepflow = keepflow
        self._master = master

    def join(self) -> None:
        """Join the master with a one-time token, handed over in a file as an admin would."""
        token = self.host.path("/etc/keepflow") / f"join-{secrets.token_hex(4)}.token"
        token.touch(0o600)
        token.write_text(self._keepflow("agent", "token", self.name))
        argv = ("agent", "join", self._master.url, "--insecure-http", "--token-file", f"/etc/keepflow/{token.name}")
        done = self.host.run(str(self._keepflow.program), *argv, env=self._keepflow.env)
        token.unlink()
        if done.returncode:
            raise RuntimeError(f"the agent {self.name} could not join:\n{done.stderr}")

    def start(self, failpoints: str = "") -> None:
        """Start the agent and wait until the master has it; `failpoints` arms KEEPFLOW_FAILPOINTS."""
        armed = {"KEEPFLOW_FAILPOINTS": failpoints} if failpoints else {}
        self.process = self._keepflow.start("agent", "run", log=self.log, env=armed, prefix=self.host.prefix)
        self.wait_ready(lambda: self._master.online(self.name), 20)
