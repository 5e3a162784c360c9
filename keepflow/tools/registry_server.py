"""An image registry of one's own: Debian's docker-registry on a private socket, behind an nginx that ends TLS.

Both are detached and outlive whoever started them. nginx decides who may push: the pull user may only read. Everything
runs as the calling account, inside a directory only that account can enter.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from keepflow import errors
from keepflow.tools.detached import Detached
from keepflow.tools.files import write_atomic
from keepflow.tools.registry import Registry
from keepflow.tools.registry_plan import Plan

_PATIENCE = 15.0  #: seconds for a program to answer; nginx alone tries 2.5 s to get its port
_PROGRAMS = {
    "docker-registry": "on Debian and Ubuntu: apt install docker-registry",
    "nginx": "on Debian and Ubuntu: apt install nginx-light",
    "setsid": "package util-linux",
}


@dataclass(frozen=True, slots=True)
class State:
    """What runs: process numbers or None, and "" or what is wrong at the front door."""

    registry: int | None
    front: int | None
    complaint: str

    @property
    def healthy(self) -> bool:
        """Whether both run and the front door answers."""
        return self.registry is not None and self.front is not None and not self.complaint


class RegistryServer:
    """The two programs of one plan."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._registry = Detached(plan.run / "registry.pid", plan.run / "registry.log")
        self._front = Detached(plan.run / "nginx.pid", plan.run / "nginx.log")

    def up(self) -> State:
        """Make it run as planned; what already does is left alone. Returns once the front door answers over TLS.

        The certificate must be there, and the caller holds `only_one`. Raises ProgramMissing, UsageError for a plan
        that makes no sense, and Unavailable with the last words of a program that does not come up.
        """
        plan, programs = self._plan, find_programs()
        plan.check()
        plan.save()
        plan.data.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name, text in plan.logins().items():
            _write(plan.run / name, text)
        self._up_registry(programs["docker-registry"])
        self._up_front(programs["nginx"])
        return self.state()

    def down(self) -> bool:
        """Stop both; says whether anything ran. The caller holds `only_one`."""
        return any([self._front.stop(), self._registry.stop()])

    def state(self) -> State:
        """Say what runs, by asking the processes and the front door."""
        return State(self._registry.pid(), self._front.pid(), self._complaint())

    def _up_registry(self, program: str) -> None:
        path, text = self._plan.run / "registry.yml", self._plan.registry_text()
        if not (_holds(path, text) and self._registry.pid() and self._registry_answers()):
            self._registry.stop()
            self._plan.socket.unlink(missing_ok=True)
            _write(path, text)
            self._registry.start([program, "serve", str(path)])
        _await("docker-registry", self._registry, lambda: "" if self._registry_answers() else "no answer")

    def _up_front(self, program: str) -> None:
        path, text = self._plan.run / "nginx.conf", self._plan.front_text()
        if not (_holds(path, text) and self._front.pid()):
            self._front.stop()
            _write(path, text)
            run = str(self._plan.run)
            self._front.start([program, "-p", run, "-e", str(self._front.log_file), "-c", str(path)])
        elif self._complaint():
            self._front.send(signal.SIGHUP)  # a renewed certificate
        _await("nginx", self._front, self._complaint)

    def _registry_answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as asking:
            asking.settimeout(3)
            try:
                asking.connect(str(self._plan.socket))
                asking.sendall(b"GET /v2/ HTTP/1.0\r\nHost: x\r\n\r\n")
                return asking.recv(64).split(b" ")[1:2] == [b"200"]
            except OSError:
                return False

    def _complaint(self) -> str:
        """Ask at the front door as a client would; return "" or what is wrong."""
        plan = self._plan
        host, port = plan.address
        try:
            served = ssl.get_server_certificate((host, port), timeout=3)
            wanted = (plan.home / "registry.crt").read_text()
        except (OSError, ValueError) as error:
            return f"no answer at {plan.listen}: {error}"
        if ssl.PEM_cert_to_DER_cert(served) != ssl.PEM_cert_to_DER_cert(wanted):
            return f"{plan.listen} shows another certificate than {plan.home}/registry.crt"
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            Registry(address, plan.pull_user, plan.password("pull"), ca_file=plan.authority).ping()
        except errors.RegistryError as error:
            return error.message
        return ""


def find_programs() -> dict[str, str]:
    """Return the paths of the programs a registry needs; raises ProgramMissing naming all that are missing."""
    places = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))
    found = {name: shutil.which(name, path=places) for name in _PROGRAMS}
    missing = [f"{name} ({_PROGRAMS[name]})" for name, path in found.items() if path is None]
    if missing:
        raise errors.ProgramMissing(f"a registry needs {', and '.join(missing)}")
    return {name: path for name, path in found.items() if path}


@contextmanager
def only_one(plan: Plan) -> Iterator[None]:
    """Hold the registry's directory, made if need be, against another `up` or `down` at the same moment."""
    run = plan.run
    run.mkdir(mode=0o700, parents=True, exist_ok=True)
    run.chmod(0o700)
    with (run / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _holds(path: Path, text: str) -> bool:
    return path.exists() and path.read_text() == text


def _write(path: Path, text: str) -> None:
    if not _holds(path, text):
        write_atomic(path, text.encode(), 0o600)


def _await(name: str, program: Detached, complaint: Callable[[], str]) -> None:
    """Wait until there is no complaint; raises Unavailable with the program's last words."""
    deadline = time.monotonic() + _PATIENCE
    while wrong := complaint():
        if program.pid() is None or time.monotonic() > deadline:
            said = program.last_words().splitlines()[-6:]
            raise errors.Unavailable(f"{name} does not come up ({wrong}); its log says:\n" + "\n".join(said))
        time.sleep(0.02)
