"""Runs commands as plain processes of this machine.

Each command gets its own session under a shim of a few lines of POSIX shell, because a shim outlives the agent: it
writes its number and later the exit code to the `result` file, so an agent that was restarted meanwhile finds the
command again (`find`) and still learns how it ended. Beside `result` lies `result.started`, by which a process that got
the shim's number later is told from the shim.
"""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import time
from collections.abc import Callable
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
_FRESH = 0.25  #: seconds that a shim may take to say its number
_STRAY_GRACE = 0.5  #: seconds that a process has which hid from the end of its job
#: Marks of the jobs that run → the account they run as, if another one, and the uptime when their first command began.
_living: dict[str, tuple[int | None, float]] = {}

# Standard input is the result file: a shell can hand on only descriptors below 10, and a path would have to be writable
# by the account of the job. The trap keeps the shim alive through a SIGTERM to the whole group, so that it can tell how
# the command took it; a trap (unlike an ignored signal) is not inherited by the command.
_SHIM = """exec 3>&0 </dev/null
trap : HUP INT TERM
echo $$ >&3
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
        self._enter(mark, result, _processes.uptime)
        descriptor = os.open(result, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            process = self._spawn(command, output, descriptor, result)
        except (OSError, ValueError) as error:
            raise errors.Unavailable(f"{command.argv[0]} could not be started: {error}", code="start-failed") from error
        finally:
            os.close(descriptor)
        if seen := _processes.look(process.pid):
            _beside(result).write_text(f"{seen.pid} {seen.started}\n")
        return Process(process, mark)

    def find(self, mark: str | None, result: Path) -> Process | None:
        """Take up a command that an earlier process of the agent started; None when it never began.

        Raises Unavailable `processes-gone` when it was ended without having told how it took that.
        """
        if not result.exists():
            return None
        self._enter(mark, result, lambda: 0.0)  # its first command may not be written down
        seen = _shim_of(mark, result)
        patience = time.monotonic() + _FRESH
        while seen is None and not result.stat().st_size and time.monotonic() < patience:
            time.sleep(0.01)  # it may have been started this moment, and not be what it will be yet
            seen = _shim_of(mark, result)
        if seen is not None:
            found = Child(seen.pid, lambda _: None, lambda: read_result(result))
            if _processes.look(seen.pid) == seen:  # still the one it was when its handle was opened
                return Process(found, mark)
        if (code := read_result(result)) is not None:
            return Process(Ended(code), mark)
        if result.stat().st_size == 0:  # the shim's first act is to write its number
            return None
        raise errors.Unavailable("its processes were ended while no agent was there", code="processes-gone")

    def _enter(self, mark: str | None, result: Path, otherwise: Callable[[], float]) -> None:
        """Remember whose processes may be left when this job ends, and since when."""
        if not mark:
            return
        user, since = _living.get(f"{MARK}={mark}", (None, None))
        if since is None:
            begun = [_begun(path) for path in result.parent.glob("*.started")]
            since = min(begun) / os.sysconf("SC_CLK_TCK") if begun else otherwise()
        _living[f"{MARK}={mark}"] = (self._account.uid if self._account else user, since)

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


@dataclass(frozen=True, slots=True)
class Ended:
    """A command that ended while no agent was there."""

    status: int
    pid: int = 0

    def poll(self) -> int:
        """Return how it ended."""
        return self.status

    def wait(self) -> int:
        """Return how it ended."""
        return self.status


class Process:
    """A command that was started. It ends with `kill` or by itself, never because the agent goes away."""

    def __init__(self, process: subprocess.Popen[bytes] | Child | Ended, mark: str | None) -> None:
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
    user, since = _living.get(mark, (None, 0.0))
    try:
        if _nobody_left(mark, user, since):
            return True
        gone = _processes.end(mark, None, grace, since)
    finally:
        _living.pop(mark, None)
    if user is None:
        return gone
    return _processes.end_all(lambda: _processes.strays(user, since, list(_living)), min(grace, _STRAY_GRACE)) and gone


def _nobody_left(mark: str, user: int | None, since: float) -> bool:
    """Say whether a job left nothing, by one look at all processes; that is how nearly every job ends."""
    among = _processes.everyone()
    if _processes.marked(mark, None, since, among):
        return False
    others = [other for other in list(_living) if other != mark]
    return user is None or not _processes.strays(user, since, others, among)


def read_result(path: Path) -> int | None:
    """Return the exit code from a result file, or None when the command never came to write it."""
    try:
        lines = path.read_text().split("\n")
    except FileNotFoundError:
        return None
    return int(lines[1]) if len(lines) > 2 else None


def _beside(result: Path) -> Path:
    return result.with_name(f"{result.name}.started")


def _begun(path: Path) -> float:
    """Return when a shim began, in ticks since boot; 0 when whoever started it died before that was written down."""
    words = path.read_text().split()
    return float(words[1]) if len(words) == 2 else 0.0


def _shim_of(mark: str | None, result: Path) -> _processes.Seen | None:
    """Return the living shim that writes to a result file."""
    try:
        pid, started = (int(word) for word in _beside(result).read_text().split())
    except (FileNotFoundError, ValueError):  # whoever started it died before it had written that down
        found = _processes.marked(f"{MARK}={mark}") if mark else []
        return next((seen for seen in found if seen.pid == seen.group and _is_shim(seen.pid)), None)
    seen = _processes.look(pid)
    return seen if seen is not None and seen.started == started else None


def _is_shim(pid: int) -> bool:
    try:
        return _SHIM.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _runnable(command: Command) -> bool:
    program, path = command.argv[0], command.env.get("PATH", os.defpath)
    if "/" in program:
        return (command.cwd / program).exists()
    if (program, path) not in _found and shutil.which(program, path=path):
        _found.add((program, path))
    return (program, path) in _found
