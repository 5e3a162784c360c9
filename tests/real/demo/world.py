"""One world: engine, registry, master with its agent, repository with its hook, and a production host far away."""

from __future__ import annotations

import secrets
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from tests.real.demo import files
from tests.real.demo.commands import Keepflow
from tests.real.demo.doors import Door
from tests.real.demo.leftovers import directory_of, image_of, remove_world, sweep_worlds
from tests.real.demo.master import Master
from tests.real.demo.production import Production
from tests.real.demo.repository import Repository
from tests.real.engines import Engine
from tests.real.hosts import SecondHost, sweep
from tests.real.leftovers import STATE, one_at_a_time, write_record
from tests.real.waiting import free_port, wait_until

Tell = Callable[[str, str], None]  #: what was done, and a detail


def _tell_nobody(_what: str, _detail: str) -> None:
    """Say nothing."""


class World:
    """Everything the chain needs, from nothing; `with World() as world:` takes all of it away again.

    What a world whose maker was killed has left is removed when the next one is made.
    """

    def __init__(self, tell: Tell = _tell_nobody) -> None:
        self._tell = tell
        self.seconds: dict[str, float] = {}  #: how long things took to be ready
        self.directory = directory_of(secrets.token_hex(2))
        self.image = image_of(self.directory)
        self._closing: list[Callable[[], object]] = []

    def __enter__(self) -> World:
        try:
            self._build()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _build(self) -> None:
        swept = [*sweep_worlds(), *sweep()]
        if swept:
            self._tell("cleaned up", f"what an earlier one left: {', '.join(swept)}")
        self._make_engine()
        self._make_host()
        self._make_repository()
        self._start_registry()
        self._write_files()
        self._start_master()
        self._start_production()

    def _make_engine(self) -> None:
        self.engine = Engine.primary(STATE / "primary")
        with one_at_a_time():  # no sweep may see the directory without its record
            write_record(self.directory, engine=str(self.engine.socket))
        self._closing += [self.engine.stop, lambda: remove_world(self.directory)]
        for name in ("home", "person", "logs"):
            (self.directory / name).mkdir()
        (self.directory / "home").chmod(0o700)
        self.keepflow = Keepflow(self.directory, self.engine.host)
        version = self.engine.docker("version", "--format", "{{.Server.Version}}")
        self._tell("engine", f"{version} at {self.engine.host}")

    def _make_host(self) -> None:
        self.host = SecondHost()
        self._closing.append(self.host.close)
        self.host.start_engine()
        self._tell("second host", f"{self.host.address}: own network, own engine, own files, no way in")

    def _make_repository(self) -> None:
        app, compress = self.engine.base_image("app"), self.engine.base_image("compress")
        self.repository = Repository(self.directory, self.image, app=app, compress=compress)
        self._tell("repository", str(self.repository.bare))

    def _start_registry(self) -> None:
        listen = f"{self.host.gateway}:{free_port(self.host.gateway)}"
        self.registry: dict[str, str] = self.keepflow.json("registry", "up", "--listen", listen)
        for certificates in (Path("/etc/docker/certs.d"), self.host.path("/etc/docker") / "certs.d"):
            trusted = certificates / self.registry["address"] / "ca.crt"
            trusted.parent.mkdir(parents=True)
            shutil.copyfile(self.registry["ca_file"], trusted)
        self._tell("registry", f"https://{self.registry['address']}, one user pushes, one only pulls")

    def _write_files(self) -> None:
        home = self.directory / "home"
        master = f"http://{self.host.gateway}:{free_port(self.host.gateway)}"
        dev, test = (_free_or(port) for port in (8900, 8099))
        self.names = files.Names(self.image, self.registry["address"], master, dev, test)
        self.hook_secret = home / "keepwork.hook"
        self.hook_secret.touch(0o600)
        self.hook_secret.write_text(secrets.token_hex(32))
        files.write_server(
            home / "keepflow.yml", self.names,
            repository=self.repository.bare, hook_secret=self.hook_secret, registry=self.registry,
        )  # fmt: skip
        files.write_local_agent(home / "local-agent.yml", self.names, self.engine.host)
        files.write_production_agent(
            self.host.path("/etc/keepflow/agent.yml"), self.names, self.host.engine.host,
            Path(self.registry["ca_file"]).read_text(), Path(self.registry["pull_password_file"]).read_text(),
        )  # fmt: skip

    def _start_master(self) -> None:
        home = self.directory / "home"
        self.master = Master(self.keepflow, home, self.names.master, self.directory / "logs" / "master.log")
        self.seconds["master_ready"] = self.master.start()
        self.keepflow("apply", "--file", str(home / "keepflow.yml"), "--yes")
        self.doors = {
            "dev": Door(f"http://127.0.0.1:{self.names.dev_port}", "localhost"),
            "test": Door(f"http://127.0.0.1:{self.names.test_port}", "localhost"),
        }
        hook = ("hook", "show", "--url", f"{self.names.master}/hooks/{files.PROJECT}")
        self.repository.install_hook(
            self.keepflow(*hook, "--secret-file", str(self.hook_secret)), str(self.keepflow.program.parent)
        )
        self._tell("master", f"{self.names.master} with its local agent")

    def _start_production(self) -> None:
        self.production = Production(self.host, self.keepflow, self.master, self.directory / "logs" / "prod-1.log")
        self.production.join()
        self.production.start()
        self.doors["production"] = self.production.door
        self._tell("agent prod-1", "joined with a one-time token; it dials out and opens no port")

    def promote(self, run: int, *more: str, seconds: float = 60) -> subprocess.CompletedProcess[str]:
        """Press Promote on the command line, as a script does."""
        return self.keepflow.attempt(
            "promote", "--run", str(run), "--to", "production", "--yes", *more, seconds=seconds
        )

    def quiet(self, seconds: float = 60) -> None:
        """Wait until nothing is under way any more."""
        wait_until(lambda: not self.busy(), seconds, "the end of all runs", every=0.1)

    def busy(self) -> list[int]:
        """Return the runs that have not ended."""
        return [run["number"] for state in ("queued", "waiting", "running") for run in self.master.runs(state=state)]

    def close(self) -> None:
        """Take everything away; what hinders one part hinders no other."""
        troubles = []
        for part in (getattr(self, "production", None), getattr(self, "master", None)):
            if part is not None:
                self._try(part.stop, troubles)
        while self._closing:
            self._try(self._closing.pop(), troubles)
        if troubles:
            raise RuntimeError("; ".join(troubles))

    @staticmethod
    def _try(act: Callable[[], object], troubles: list[str]) -> None:
        try:
            act()
        except Exception as error:  # the other parts must go as well; the world's maker is told at the end
            troubles.append(f"{type(error).__name__}: {error}")


def _free_or(wanted: int) -> int:
    """Return a port people remember when nobody has it, else a free one."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            return free_port()
    return wanted
