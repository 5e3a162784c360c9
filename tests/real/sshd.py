"""A real sshd on loopback that lets one key in, as the account that runs the tests."""

from __future__ import annotations

import getpass
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from keepflow.executors.ssh import Remote
from tests.real.parts import find, need
from tests.real.waiting import free_port, wait_until


@dataclass(frozen=True, slots=True)
class Sshd:
    """A running server; `place` holds its `host` key, the `client` key it takes, and its `log`."""

    place: Path
    port: int
    host_key: str  #: type and base64, as known_hosts files write it

    @property
    def fingerprint(self) -> str:
        """What `ssh-keygen -lf` prints for the host key."""
        told = subprocess.run(
            ["ssh-keygen", "-lf", str(self.place / "host.pub")], capture_output=True, text=True, check=True
        )
        return told.stdout.split()[1]


def remote(server: Sshd, host_key: str = "") -> Remote:
    """Return how an agent's file would say this host."""
    shown = host_key or " ".join(server.host_key.split()[:2])
    return Remote("127.0.0.1", server.port, getpass.getuser(), str(server.place / "client"), shown)


def new_key(path: Path, passphrase: str = "") -> str:
    """Make a key pair and return its public half."""
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-C", "", "-f", str(path)], check=True, timeout=30
    )
    return path.with_suffix(".pub").read_text().strip()


@contextmanager
def sshd(place: Path, port: int | None = None, *settings: str) -> Iterator[Sshd]:
    """Run sshd with the keys of `place`, made when they are missing.

    Started by root it wants /run/sshd, which its package makes only when systemd starts it.
    """
    need("sshd", "ssh-keygen")
    port = port or free_port()
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    for name in ("host", "client"):
        if not (place / name).exists():
            new_key(place / name)
    (place / "authorized").write_text((place / "client.pub").read_text())
    more = "".join(f"{line}\n" for line in settings)
    (place / "sshd.conf").write_text(
        f"{more}ListenAddress 127.0.0.1:{port}\nHostKey {place}/host\nAuthorizedKeysFile {place}/authorized\n"
        f"StrictModes no\nUsePAM no\nPasswordAuthentication no\nPidFile none\nPermitRootLogin yes\n"
    )
    with (place / "log").open("wb") as log:
        daemon = subprocess.Popen([str(find("sshd")), "-D", "-e", "-f", str(place / "sshd.conf")], stderr=log)
    try:
        wait_until(lambda: b"Server listening" in (place / "log").read_bytes(), 10, "sshd listening")
        yield Sshd(place, port, (place / "host.pub").read_text().strip())
    finally:
        daemon.terminate()
        daemon.wait(timeout=10)
