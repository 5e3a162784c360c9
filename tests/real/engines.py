"""Docker engines started by hand, without systemd: on this host, or inside a second host."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from tests.real.images import base_image
from tests.real.leftovers import alive
from tests.real.waiting import Hopeless, wait_until

SYSTEM_SOCKET = Path("/var/run/docker.sock")
START_SECONDS = 60.0


class Engine:
    """One engine, reached by its socket.

    `start()` runs an own daemon, `Engine.primary()` finds or starts this host's, `Engine.running()` is somebody's else.
    `directory` holds the daemon's data, socket and log. It must be short (a Unix socket path has 107 characters) and on
    a disk, not a tmpfs. `prefix` is put before the daemon's argv, to start it in other namespaces.
    """

    def __init__(self, directory: Path, *, bridge: str = "10.223.0.1/24", prefix: tuple[str, ...] = ()) -> None:
        self.directory = directory
        self.bridge = bridge
        self.prefix = prefix
        self.socket = directory / "docker.sock"
        self.log = directory / "dockerd.log"
        self._daemon: subprocess.Popen[bytes] | None = None
        self._pid: int | None = None  #: of the daemon, when this object may stop it
        self._using: int | None = None  #: holds a lock that says that this object uses an engine others may use, too

    @classmethod
    def primary(cls, directory: Path, *, prefix: tuple[str, ...] = ()) -> Engine:
        """Return this host's running engine; without one, the one in `directory`, which is started when nobody runs it.

        Several processes may use the one in `directory`; the last that stops it ends it, whoever started it. What a
        broken-off run left is used, and ended, like any other.
        """
        engine = cls(directory, prefix=prefix)
        if answers(SYSTEM_SOCKET):
            engine.socket = SYSTEM_SOCKET
            return engine
        directory.mkdir(parents=True, exist_ok=True)
        with engine._alone():
            engine._using = os.open(directory / "users", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(engine._using, fcntl.LOCK_SH)  # ends with the process, however that ends
            if answers(engine.socket):
                engine._pid = int((directory / "dockerd.pid").read_text())
            else:
                engine.start()
        return engine

    @classmethod
    def running(cls, socket: Path) -> Engine:
        """Return the engine that another process started and answers on `socket`; this object never stops it."""
        engine = cls(socket.parent)
        engine.socket = socket
        return engine

    @property
    def host(self) -> str:
        """The address as DOCKER_HOST and docker clients want it."""
        return f"unix://{self.socket}"

    @property
    def env(self) -> dict[str, str]:
        """This process's environment with DOCKER_HOST set, for programs that shall speak to this engine."""
        return {**os.environ, "DOCKER_HOST": self.host}

    def start(self) -> None:
        """Start the daemon and wait until it answers. Raises Hopeless with the end of its log when it ends instead."""
        missing = [program for program in ("dockerd", "iptables") if shutil.which(program) is None]
        if missing:
            raise RuntimeError(f"{' and '.join(missing)} missing: run scripts/install-parts.sh engine")
        self.directory.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._daemon = subprocess.Popen(
                [*self.prefix, *self._argv()], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self._pid = self._daemon.pid
        wait_until(self._started, START_SECONDS, f"the engine in {self.directory} answering")

    def _argv(self) -> list[str]:
        """Return the daemon's command: everything it keeps lies in the directory, its networks in its own ranges."""
        pool = self.bridge.rsplit(".", 2)[0] + ".128.0/17"
        return [
            "dockerd",
            f"--data-root={self.directory}/data",
            f"--exec-root={self.directory}/exec",
            f"--pidfile={self.directory}/dockerd.pid",
            f"--host={self.host}",
            f"--bip={self.bridge}",
            f"--default-address-pool=base={pool},size=24",
        ]

    def _started(self) -> bool:
        """Say whether the daemon answers; a daemon that ended will never answer."""
        if self._daemon is not None and self._daemon.poll() is not None:
            tail = self.log.read_text(errors="replace")[-2000:]
            raise Hopeless(f"dockerd ended with status {self._daemon.returncode}:\n{tail}")
        return answers(self.socket)

    def stop(self) -> None:
        """Stop a daemon that is this object's, and with it its containers; not while others use it."""
        if self._using is None:
            self._end()
            return
        using, self._using = self._using, None
        with self._alone():
            try:
                fcntl.flock(using, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._end()
            except BlockingIOError:
                self._leave()
            finally:
                os.close(using)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the lock under which the engine in the directory is started and ended."""
        with (self.directory / "starting").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _leave(self) -> None:
        """Go away without the daemon, which others use."""
        if self._daemon is not None:
            self._daemon.returncode = 0  # it runs on, and that is no mistake to be warned of
        self._daemon = self._pid = None

    def _end(self) -> None:
        if self._pid is None:
            return
        pid, self._pid = self._pid, None
        for number, seconds in ((signal.SIGTERM, 30), (signal.SIGKILL, 10)):
            with contextlib.suppress(ProcessLookupError, TimeoutError):
                os.kill(pid, number)
                wait_until(lambda: not alive(pid), seconds, "the end of dockerd")
                break
        if self._daemon is not None:
            self._daemon.wait(timeout=10)
            self._daemon = None

    def docker(self, *argv: str, seconds: float = 120) -> str:
        """Run `docker ARGV…` against this engine and return its trimmed output; RuntimeError tells what it said."""
        done = self.attempt(*argv, seconds=seconds)
        if done.returncode:
            raise RuntimeError(f"docker {' '.join(argv)} ended with {done.returncode}:\n{done.stderr.strip()}")
        return done.stdout.strip()

    def attempt(self, *argv: str, seconds: float = 120) -> subprocess.CompletedProcess[str]:
        """Run `docker ARGV…` against this engine and return the outcome, good or bad."""
        return subprocess.run(
            ["docker", *argv], env=self.env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds
        )

    def base_image(self, kind: str) -> str:
        """Make sure that this engine has a base image (`busybox`, `app`, `compress`) and return its name."""
        return base_image(self, kind)

    def remove_labelled(self, label: str) -> None:
        """Remove every container, network and volume that carries a label (`key` or `key=value`), running or not."""
        for noun, listing, removal in (
            ("container", ("ls", "--all", "--quiet"), ("rm", "--force", "--volumes")),
            ("network", ("ls", "--quiet"), ("rm",)),
            ("volume", ("ls", "--quiet"), ("rm", "--force")),
        ):
            for found in self.docker(noun, *listing, "--filter", f"label={label}").split():
                self.docker(noun, *removal, found)

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def answers(path: Path) -> bool:
    """Say whether an engine answers `GET /_ping` on a Unix socket."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(2)
        try:
            connection.connect(str(path))
            connection.sendall(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")
            return b" 200 " in connection.recv(256)
        except OSError:
            return False
