"""Machines for tests: this host's engine, and second hosts that are as far away as another machine.

A second host is a network namespace with one cable (a veth pair), its own mounts for what a machine keeps to itself
(/etc/docker, /etc/keepflow, /var/lib/keepflow, /run/keepflow), and its own engine. There is no way in but what listens
there; `cut()` is a silent partition, as when a cable is pulled behind a switch.

Everything made here carries the prefix `kft-` and is listed in STATE; `sweep()` removes what a run that was broken off
left behind.
"""

from __future__ import annotations

import ipaddress
import json
import re
import secrets
import subprocess
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from tests.real.engines import Engine
from tests.real.images import base_image, cache_dir
from tests.real.leftovers import STATE, ip, one_at_a_time, remove, sweep, write_record
from tests.real.load_process import Load
from tests.real.waiting import Hopeless, free_port, wait_until

__all__ = [
    "Engine",
    "Hopeless",
    "Listener",
    "Load",
    "SecondHost",
    "base_image",
    "cache_dir",
    "free_port",
    "sweep",
    "wait_until",
]

CABLES = ipaddress.ip_network("10.222.0.0/16")  #: every cable gets a /30 of it
OWN_MOUNTS = ("/etc/docker", "/etc/keepflow", "/var/lib/keepflow", "/run/keepflow")


@dataclass(frozen=True, slots=True)
class Listener:
    """One listening socket of a host; `program` is empty when the kernel does not tell."""

    protocol: str
    address: str
    port: int
    program: str = ""


class SecondHost:
    """A host of its own.

    Processes start on it by `run`, `popen` or `prefix`; it is reached at `address` and reaches us at `gateway`.
    """

    def __init__(self, label: str = "prod") -> None:
        """Make the host; its engine is started by `start_engine()`. `label` only helps people to tell hosts apart."""
        self.name = f"kft-{label[:8]}-{secrets.token_hex(2)}"
        self.directory = STATE / self.name
        self._cable = f"kft{secrets.token_hex(4)}"  # an interface name has 15 characters
        self._holder: subprocess.Popen[bytes] | None = None
        with one_at_a_time():  # no sweep may see the directory without its record
            write_record(self.directory, cable=f"{self._cable}o")
        try:
            self.gateway, self.address = self._make_network()
            self._hold_mounts()
        except BaseException:
            remove(self.directory)
            raise
        self.engine = Engine(self.directory, prefix=self.prefix)

    def _make_network(self) -> tuple[str, str]:
        """Make the namespace and its cable, and return both ends' addresses, ours first.

        There is no default route: the host reaches us and nobody else.
        """
        ours, theirs = f"{self._cable}o", f"{self._cable}i"
        ip("netns", "add", self.name)
        ip("link", "add", ours, "type", "veth", "peer", "name", theirs, "netns", self.name)
        with one_at_a_time():
            outside, inside = _free_cable()
            ip("address", "add", f"{outside}/30", "dev", ours)
            ip("link", "set", ours, "up")
        ip("-n", self.name, "address", "add", f"{inside}/30", "dev", theirs)
        ip("-n", self.name, "link", "set", theirs, "up")
        ip("-n", self.name, "link", "set", "lo", "up")
        return outside, inside

    def _hold_mounts(self) -> None:
        """Start the process that keeps the host's own mounts alive; everything else on the host joins it."""
        script = "set -eu; for pair; do mount --bind ${pair%%:*} ${pair#*:}; done; echo ready; exec sleep infinity"
        pairs = []
        for place in OWN_MOUNTS:
            Path(place).mkdir(parents=True, exist_ok=True)
            self.path(place).mkdir(parents=True)
            pairs.append(f"{self.path(place)}:{place}")
        self._holder = subprocess.Popen(
            ["nsenter", f"--net=/run/netns/{self.name}", "unshare", "-m", "sh", "-c", script, "sh", *pairs],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        if self._holder.stdout is None or self._holder.stdout.readline() != b"ready\n":
            raise RuntimeError(f"the mounts of {self.name} could not be made")

    @property
    def prefix(self) -> tuple[str, ...]:
        """The start of an argv that runs the rest of it on this host."""
        if self._holder is None:
            raise RuntimeError(f"{self.name} is closed")
        return ("nsenter", "--target", str(self._holder.pid), "--net", "--mount", "--")

    def path(self, place: str) -> Path:
        """Return where, seen from outside, a path below one of OWN_MOUNTS of this host really lies."""
        for own in OWN_MOUNTS:
            if place == own or place.startswith(f"{own}/"):
                return self.directory / "root" / place.lstrip("/")
        return Path(place)

    def run(
        self, *argv: str, seconds: float = 60, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on this host and return its outcome, good or bad."""
        return subprocess.run(
            [*self.prefix, *argv], env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds
        )

    def popen(self, *argv: str, log: Path, env: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start a command on this host that goes on running; its output is appended to `log`. It ends with the host."""
        with log.open("ab") as output:
            return subprocess.Popen(
                [*self.prefix, *argv],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def start_engine(self) -> Engine:
        """Start this host's own engine, wait until it answers, and return it."""
        self.engine.start()
        return self.engine

    def cut(self) -> None:
        """Cut the cable silently: packets vanish both ways, nobody is told, and open connections hang."""
        for table, chain, direction in self._drops():
            self._iptables(table, "-I", chain, direction, f"{self._cable}i", "-j", "DROP")

    def mend(self) -> None:
        """Undo `cut()`; calling it on a whole cable does nothing."""
        for table, chain, direction in self._drops():
            rule = (chain, direction, f"{self._cable}i", "-j", "DROP")
            while self.run("iptables", "-w", "-t", table, "-C", *rule).returncode == 0:
                self._iptables(table, "-D", *rule)

    @staticmethod
    def _drops() -> tuple[tuple[str, str, str], ...]:
        """Return where packets are lost while the cable is cut: table, chain and direction."""
        return ("raw", "PREROUTING", "-i"), ("mangle", "POSTROUTING", "-o")

    def _iptables(self, table: str, *rule: str) -> None:
        done = self.run("iptables", "-w", "-t", table, *rule)
        if done.returncode:
            raise RuntimeError(f"iptables on {self.name}: {done.stderr.strip()}")

    def listening(self) -> list[Listener]:
        """Return every TCP and UDP socket that listens on this host, on any address, with its program."""
        done = self.run("ss", "--no-header", "--listening", "--numeric", "--tcp", "--udp", "--processes")
        if done.returncode:
            raise RuntimeError(f"ss on {self.name}: {done.stderr.strip()}")
        found = []
        for line in done.stdout.splitlines():
            protocol, _state, _received, _sent, local, *_peer = line.split()
            address, port = local.rsplit(":", 1)
            program = re.search(r'users:\(\("([^"]+)"', line)
            found.append(
                Listener(protocol, address.split("%")[0].strip("[]"), int(port), program[1] if program else "")
            )
        return found

    def close(self) -> None:
        """Remove the host with all its processes, containers, mounts and files; nothing is asked to end gracefully."""
        if self._holder is None:
            return
        remove(self.directory)
        self.engine.stop()
        if self._holder.stdout is not None:
            self._holder.stdout.close()
        self._holder.wait(timeout=10)
        self._holder = None

    def __enter__(self) -> SecondHost:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _free_cable() -> tuple[str, str]:
    """Return both addresses of a cable that no route of this host covers."""
    routes = json.loads(ip("-4", "-json", "route", "show", "table", "all"))
    taken = [ipaddress.ip_network(route["dst"], strict=False) for route in routes if route["dst"] != "default"]
    for cable in CABLES.subnets(new_prefix=30):
        if not any(cable.overlaps(network) for network in taken):
            outside, inside = cable.hosts()
            return str(outside), str(inside)
    raise RuntimeError(f"no free network for a cable in {CABLES}")
