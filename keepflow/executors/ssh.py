"""Runs commands on another host that is reached by SSH, in a directory there.

The other side needs a POSIX shell and `tar`, nothing of keepflow. A command and its variables go there by standard
input: no list of processes shows them. What ends a command here ends what it began there, by its process group; beside
the directory, `.group` says which that is to a session that comes after one that was lost.
"""

from __future__ import annotations

import json
import os
import secrets
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from keepflow.executors.shell import MARK, Account, Process, Shell
from keepflow.ports import Command
from keepflow.tools.processes import clean_env

_LAY = 'echo "$$" >&2; umask 077; rm -rf -- "$1" && mkdir -p -- "$1" && cd -- "$1" && exec tar -xf -'
# The group can be nobody else's: its leader is what it was when it began, or it is gone and others of it are left.
_END_LEFT = """(read -r group began <"$1.group" || exit 0
set -- $(ps -o lstart= -p "$group" 2>/dev/null)
[ -z "$*" ] || [ "$*" = "$began" ] || exit 0
kill -s TERM -- "-$group" || exit 0
n=0
while kill -s 0 -- "-$group" && [ "$n" -lt 20 ]; do sleep 0.05; n=$((n + 1)); done
kill -s KILL -- "-$group") 2>/dev/null
"""
_REMOVE = 'cd / && rm -rf -- "$1" "$1.group"'
_CONNECTION = 5.0  #: seconds that ending a command takes beyond its grace: a word there and one back


@dataclass(frozen=True, slots=True)
class Remote:
    """A host, how to sign in there, and the one key it must show (`ssh-ed25519 AAAA…`)."""

    address: str
    port: int
    user: str
    key_file: str
    host_key: str


class Ssh:
    """Starts commands in `directory` of a host. `handed` is where the agent lays what its processes are told."""

    def __init__(self, remote: Remote, directory: str, handed: Path) -> None:
        self._remote, self._directory, self._handed = remote, directory, handed

    def start(self, command: Command, output: BinaryIO, result: Path) -> _There:
        """Start the command in `directory`, whatever `cwd` says; its exit code also comes to the file `result`.

        A program that is missing there is told by exit code 127, a host that cannot be reached by 255 and a line.
        """
        mark = command.env.get(MARK)
        env = {name: value for name, value in command.env.items() if name != MARK}
        grace_file = _grace_file(result)
        text = script(command.argv, env, self._directory)
        session = self._session("exec sh", text, grace_file, left=self._line(_END_LEFT))
        marked = {**session.env, **({MARK: mark} if mark else {})}
        return _There(Shell().start(Command(session.argv, marked, session.cwd), output, result), grace_file)

    def find(self, mark: str | None, result: Path) -> _There | None:
        """Take up a command that an earlier process of the agent started; None when it never began.

        Raises Unavailable `processes-gone` when it is gone without having told how it ended.
        """
        found = Shell().find(mark, result)
        return _There(found, _grace_file(result)) if found else None

    def laying(self, folder: Path, account: Account | None) -> Command:
        """Return the command that copies a folder to the directory there; `account` reads it."""
        return self._session(self._line(_LAY), folder=folder, account=account)

    def removing(self, *, end: bool = False) -> Command:
        """Return the command that removes the directory there; with `end` it first ends what went on in it."""
        return self._session(self._line((_END_LEFT if end else "") + _REMOVE))

    def _line(self, text: str) -> str:
        return shlex.join(["sh", "-c", text, "sh", self._directory])

    def _session(
        self,
        line: str,
        text: str = "",
        grace_file: Path = Path(os.devnull),
        *,
        folder: Path | None = None,
        account: Account | None = None,
        left: str = "",
    ) -> Command:
        path = self._handed / f"ssh-{secrets.token_hex(8)}"
        settings = {
            **asdict(self._remote),
            "line": line,
            "script": text,
            "folder": str(folder) if folder else "",
            "account": [account.uid, account.gid] if account else None,
            "grace_file": str(grace_file),
            "left": left,
        }
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(path, flags, 0o600), "wb") as file:
            file.write(json.dumps(settings).encode())
        argv = (sys.executable, "-m", "keepflow.executors._ssh_session", str(path))
        return Command(argv, clean_env(), self._handed)


class _There:
    """A command that was started on another host."""

    def __init__(self, process: Process, grace_file: Path) -> None:
        self._process, self._grace_file = process, grace_file
        self.pid = process.pid

    def wait(self, timeout: float | None = None) -> int | None:
        """Return the exit code, or None when it still runs after `timeout` seconds."""
        return self._process.wait(timeout)

    def kill(self, grace: float) -> None:
        """End the command and its process group there: SIGTERM, SIGKILL after `grace` seconds."""
        if self._process.wait(0) is None:
            self._grace_file.write_text(f"{grace}\n")
            self._process.kill(grace + _CONNECTION)


def _grace_file(result: Path) -> Path:
    """Return where a command's session looks how long its end may take."""
    return result.with_name(f"grace-{result.name}")


def script(argv: Sequence[str], env: Mapping[str, str], directory: str) -> str:
    """Return the shell script that becomes one command; its first line tells the process group."""
    exports = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in env.items())
    there = shlex.quote(directory)
    return (
        f'echo "$$" >&2\necho "$$" $(ps -o lstart= -p "$$" 2>/dev/null) >{there}.group\n'
        f"{exports}cd {there} || exit 126\nexec {shlex.join(argv)} </dev/null 2>&1\n"
    )
