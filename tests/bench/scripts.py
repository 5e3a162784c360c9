"""The bare scripts that keepflow is measured against: what people write who have no such tool."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from tests.bench.nginx import BareNginx
from tests.real.demo.doors import Door
from tests.real.engines import Engine
from tests.real.sample import git
from tests.real.waiting import free_port

_LABEL = "keepflow.bench=1"
_SUBNET, _ADDRESSES = "10.215.77.0/28", {"blue": "10.215.77.2", "green": "10.215.77.3"}
_NETWORK = "keepflow-bench-net"
_NAME = "keepflow-bench"


class Checkout:
    """A clone that is kept, as a careful script keeps one."""

    def __init__(self, bare: Path, directory: Path) -> None:
        self.directory = directory
        git(directory.parent, "clone", "--quiet", "--no-checkout", str(bare), str(directory))

    def update(self, branch: str) -> None:
        """Fetch a branch and check it out."""
        subprocess.run(["git", "fetch", "--quiet", "origin", branch], cwd=self.directory, check=True, timeout=60)
        subprocess.run(
            ["git", "checkout", "--quiet", "--force", "FETCH_HEAD"], cwd=self.directory, check=True, timeout=60
        )


class StartFirst:
    """Fetch, build, start the new one beside the old one, wait until it answers, flip a flag file before nginx."""

    def __init__(self, engine: Engine, bare: Path, root: Path) -> None:
        self._engine, self._checkout = engine, Checkout(bare, root / "start-first")
        self._nginx = BareNginx.switching(root / "switching", *(f"{ip}:8080" for ip in _ADDRESSES.values()))
        self._slot, self._number = "green", 0
        engine.docker("network", "create", "--label", _LABEL, "--subnet", _SUBNET, _NETWORK)
        self.door = Door(f"http://127.0.0.1:{self._nginx.port}", "localhost")

    def deploy(self, branch: str) -> None:
        """Do it once; the old container is left for `tidy`."""
        self._number += 1
        self._checkout.update(branch)
        image = f"{_NAME}/first:{self._number}"
        self._engine.docker("build", "--quiet", "--tag", image, str(self._checkout.directory))
        slot = "blue" if self._slot == "green" else "green"
        address = _ADDRESSES[slot]
        self._engine.docker(
            "run", "--detach", "--init", "--label", _LABEL, "--name", f"{_NAME}-{slot}",
            "--network", _NETWORK, "--ip", address, image,
        )  # fmt: skip
        wait_for(Door(f"http://{address}:8080", "localhost"))
        flag = self._nginx.root / "green"
        if slot == "green":
            flag.touch()
        else:
            flag.unlink(missing_ok=True)
        self._slot = slot

    def tidy(self) -> None:
        """Remove the container that is no longer asked."""
        other = "blue" if self._slot == "green" else "green"
        self._engine.attempt("rm", "--force", f"{_NAME}-{other}")

    def close(self) -> None:
        """Take everything away."""
        for slot in _ADDRESSES:
            self._engine.attempt("rm", "--force", f"{_NAME}-{slot}")
        self._engine.attempt("network", "rm", _NETWORK)
        self._nginx.stop()


class Naive:
    """Fetch, build, stop the old one, start the new one on the same port: the script most people have."""

    def __init__(self, engine: Engine, bare: Path, root: Path) -> None:
        self._engine, self._checkout = engine, Checkout(bare, root / "naive")
        self._port, self._number = free_port(), 0
        self.door = Door(f"http://127.0.0.1:{self._port}", "localhost")

    def deploy(self, branch: str) -> None:
        """Do it once."""
        self._number += 1
        self._checkout.update(branch)
        image = f"{_NAME}/naive:{self._number}"
        self._engine.docker("build", "--quiet", "--tag", image, str(self._checkout.directory))
        self._engine.attempt("stop", f"{_NAME}-naive")
        self._engine.attempt("rm", f"{_NAME}-naive")
        self._engine.docker(
            "run", "--detach", "--init", "--label", _LABEL, "--name", f"{_NAME}-naive",
            "--publish", f"127.0.0.1:{self._port}:8080", image,
        )  # fmt: skip

    def close(self) -> None:
        """Take everything away."""
        self._engine.attempt("rm", "--force", f"{_NAME}-naive")


def wait_for(door: Door) -> None:
    """Wait until an application shows its page."""
    deadline = time.monotonic() + 30
    while not door.marker():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{door.url} does not answer")
        time.sleep(0.01)
