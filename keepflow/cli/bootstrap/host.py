"""The host that becomes an agent: every act on it is an argument list, run as root."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePath, PurePosixPath

from keepflow import errors
from keepflow.cli.bootstrap.connection import Connection
from keepflow.tools.processes import Done

_ABSENT = 44
_READ = f'[ -e "$1" ] || exit {_ABSENT}; cat "$1"'
_LAY = 'umask 077; cat >"$1.new" && chmod "$2" "$1.new" && mv -f "$1.new" "$1"'


@dataclass(frozen=True, slots=True)
class Layout:
    """Where things lie on the host; all of it below `prefix`, which is "" for the real places."""

    prefix: str = ""

    @property
    def opt(self) -> PurePosixPath:
        """Environments and the program."""
        return PurePosixPath(f"{self.prefix}/opt/keepflow")

    @property
    def program(self) -> str:
        """The keepflow that is in use there."""
        return str(self.opt / "bin" / "keepflow")

    @property
    def etc(self) -> PurePosixPath:
        """agent.yml and what it names."""
        return PurePosixPath(f"{self.prefix}/etc/keepflow")

    @property
    def config(self) -> PurePosixPath:
        """What the host allows."""
        return self.etc / "agent.yml"

    @property
    def state(self) -> PurePosixPath:
        """The agent's own directory."""
        return PurePosixPath(f"{self.prefix}/var/lib/keepflow/agent")


@dataclass(frozen=True, slots=True)
class Host:
    """A host, as root. `sudo` is () for root, and `password` is what sudo asks for, "" when it asks for nothing."""

    connection: Connection
    sudo: tuple[str, ...] = ()
    password: str = field(default="", repr=False)

    @classmethod
    def of(cls, connection: Connection, password: str = "") -> Host:
        """Become root: by being it, by sudo without a password, or by sudo with the one that was given.

        Raises AuthError `not-root`.
        """
        if connection.run(("id", "-u")).text.strip() == "0":
            return cls(connection)
        if connection.run(("sudo", "-n", "true"), check=False).exit_code == 0:
            return cls(connection, ("sudo", "-n", "--"))
        # -k: a password is asked for each time, so that it never ends up as the input of the program.
        asked = cls(connection, ("sudo", "-k", "-S", "-p", "", "--"), password)
        if password and asked.run(("true",), check=False).exit_code == 0:
            return asked
        raise errors.AuthError(
            f"{connection.user} is not root there and may not become it by sudo; sign in as root, or let it use sudo",
            code="not-root",
        )

    def run(self, argv: Sequence[str], *, input: bytes = b"", timeout: float = 60.0, check: bool = True) -> Done:
        """Run a program as root."""
        secret = f"{self.password}\n".encode() if self.password else b""
        return self.connection.run((*self.sudo, *argv), input=secret + input, timeout=timeout, check=check)

    def read(self, path: PurePath) -> bytes | None:
        """Return the bytes of a file, or None when there is none."""
        argv = ("sh", "-c", _READ, "sh", str(path))
        done = self.run(argv, check=False)
        if done.exit_code == _ABSENT:
            return None
        if done.exit_code != 0:
            raise errors.RemoteError(f"{path} cannot be read there: {shlex.join(argv)}", code="remote-file")
        return done.stdout

    def lay(self, path: PurePath, data: bytes, mode: int) -> bool:
        """Have exactly these bytes at a place; False when it was so already."""
        if self.read(path) == data:
            return False
        self.run(("sh", "-c", _LAY, "sh", str(path), f"{mode:04o}"), input=data, timeout=600)
        return True

    def make_directory(self, path: PurePath, mode: int) -> None:
        """Have a directory; an existing one keeps its mode."""
        self.run(("sh", "-c", '[ -d "$1" ] || mkdir -p -m "$2" "$1"', "sh", str(path), f"{mode:04o}"))

    def remove(self, path: PurePath) -> None:
        """Remove a directory of ours with all that is in it."""
        self.run(("rm", "-rf", "--", str(path)))
