"""Runs commands as plain processes of this machine.

Each command gets its own session under a shim of six lines of POSIX shell, because a shim outlives the agent: it writes
the exit code to the `result` file, so an agent that was restarted meanwhile still learns how the command ended.
"""

from __future__ import annotations

import os
import select
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from keepflow import errors
from keepflow.executors import _processes
from keepflow.ports import Command
from keepflow.tools.forking import Child, forker

#: Name in the environment by which all processes of one attempt are found again, also those that left the group.
MARK = "KEEPFLOW_MARK"

_UMASK = 0o022
_STRAY_GRACE = 0.5  #: seconds that a process has which hid from the end of its job
#: Marks of the jobs that run as another account → that account, and the uptime when their first command was started.
_living: dict[str, tuple[int, float]] = {}

# Standard input is the result file: a shell can hand on only descriptors below 10, and a path would have to be writable
# by the account of the job. The trap keeps the shim alive through a SIGTERM to the whole group, so that it can tell how
# the command took it; a trap (unlike an ignored signal) is not inherited by the command.
_SHIM = """exec 3>&0 </dev/null
trap : HUP INT TERM
"$@" 3>&-
code=$?
echo "$code" >&3
exit "$code"
"""


#: Programs that were found on a PATH; looking for `sh` in ten directories takes longer than starting it.
_found: set[tuple[str, str]] = set()


@dataclass(frozen=True, slots=True)
class Account:
    """The account commands run as: numbers, so that nothing is looked up after the fork."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()


class Shell:
    """Starts commands on this machine, as the agent's own account or as another one (the agent is root then)."""

    def __init__(self, account: Account | None = None) -> None:
        self._account = account

    def start(self, command: Command, output: BinaryIO, result: Path) -> Process:
        """Start the command; its exit code also comes to the file `result`, as one line that ends with a newline.

        Raises ProgramMissing when there is no such program and Unavailable when the machine cannot start one now.
        """
        if not _runnable(command):
            raise errors.ProgramMissing(f"the program {command.argv[0]!r} is not installed, or not on PATH")
        mark = command.env.get(MARK)
        if self._account and mark:
            _living.setdefault(f"{MARK}={mark}", (self._account.uid, _processes.uptime()))
        descriptor = os.open(result, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            process = self._spawn(command, output, descriptor, result)
        except (OSError, ValueError) as error:
            raise errors.Unavailable(f"{command.argv[0]} could not be started: {error}", code="start-failed") from error
        finally:
            os.close(descriptor)
        return Process(process, mark)

    def _spawn(
        self, command: Command, output: BinaryIO, descriptor: int, result: Path
    ) -> subprocess.Popen[bytes] | Child:
        argv, account = ("/bin/sh", "-c", _SHIM, "keepflow", *command.argv), self._account
        if account is not None:
            return forker.start(
                argv,
                cwd=command.cwd,
                env=command.env,
                uid=account.uid,
                gid=account.gid,
                groups=account.groups,
                umask=_UMASK,
                files=(descriptor, output.fileno(), output.fileno()),
                last_resort=lambda: read_result(result),
            )
        return subprocess.Popen(
            argv,
            cwd=command.cwd,
            env=dict(command.env),
            stdin=descriptor,
            stdout=output,
            stderr=output,
            bufsize=0,
            start_new_session=True,
            umask=_UMASK,
        )


class Process:
    """A command that was started. It ends with `kill` or by itself, never because the agent goes away."""

    def __init__(self, process: subprocess.Popen[bytes] | Child, mark: str | None) -> None:
        self._process = process
        self._mark = f"{MARK}={mark}" if mark else None
        self.pid = process.pid

    def wait(self, timeout: float | None = None) -> int | None:
        """Return the exit code (128+n for signal n), or None when it still runs after `timeout` seconds."""
        if self._process.poll() is None and not self._ends_within(timeout):
            return None
        status = self._process.wait()
        return status if status >= 0 else 128 - status

    def kill(self, grace: float) -> None:
        """End the command and all it started: SIGTERM, SIGKILL after `grace` seconds; returns when all is gone."""
        if self._process.poll() is None and _processes.end(self._mark, self.pid, grace):
            self._process.wait()

    def _ends_within(self, timeout: float | None) -> bool:
        """Wait on the process itself; subprocess would look every 50 ms instead."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:  # reaped by another thread meanwhile
            return True
        try:
            waiting = select.poll()
            waiting.register(descriptor, select.POLLIN)
            return bool(waiting.poll(None if timeout is None else max(0, timeout) * 1000))
        finally:
            os.close(descriptor)


def started_at(pid: int) -> int | None:
    """Return what tells this process from a later one with the same number, or None when it is gone."""
    seen = _processes.look(pid)
    return seen.started if seen else None


def end_marked(mark: str, grace: float) -> bool:
    """End every process that carries this value of MARK, SIGKILL after `grace` seconds; True when all are gone.

    When they ran as an account of their own, also what that account left behind without a mark: it would be there when
    the next job comes, and everything of that job would lie open to it.
    """
    mark = f"{MARK}={mark}"
    gone = _processes.end(mark, None, grace)
    account = _living.pop(mark, None)
    if account is None:
        return gone
    user, since = account
    return _processes.end_all(lambda: _processes.strays(user, since, list(_living)), min(grace, _STRAY_GRACE)) and gone


def read_result(path: Path) -> int | None:
    """Return the exit code from a result file, or None when the command never came to write it."""
    try:
        text = path.read_text()
    except FileNotFoundError:
        return None
    return int(text) if text.endswith("\n") else None


def _runnable(command: Command) -> bool:
    program, path = command.argv[0], command.env.get("PATH", os.defpath)
    if "/" in program:
        return (command.cwd / program).exists()
    if (program, path) not in _found and shutil.which(program, path=path):
        _found.add((program, path))
    return (program, path) in _found
