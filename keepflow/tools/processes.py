"""The one runner of short programs: a list of arguments in, an exit code and bytes out, never a shell.

Each program gets its own process group, a clean environment and a deadline; when the deadline passes, the whole group
is ended, first with SIGTERM so that git and docker can take their lock files away.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from io import FileIO
from pathlib import Path
from typing import Self, TypeAlias

from keepflow import errors
from keepflow.tools.brake import stoppable
from keepflow.tools.forking import forker

MIB = 1024 * 1024
Account = tuple[int, int]  #: user id and group id
_PIECE = 64 * 1024
_TAIL_BYTES = 64 * 1024  #: how much of stderr is kept
_TAIL_LINES = 12  #: how much of it an error shows
_TERM_GRACE = 2.0  #: seconds between SIGTERM and SIGKILL
_STRAGGLER_GRACE = 0.5  #: seconds that a left-over child may hold the pipes after the program itself has ended


@dataclass(frozen=True, slots=True)
class Done:
    """A program that has ended. `exit_code` is 128+n for signal n; `stderr` holds the last 64 KiB."""

    argv: tuple[str, ...]
    exit_code: int
    stdout: bytes = field(repr=False)
    stderr: bytes = field(repr=False)

    @property
    def text(self) -> str:
        """What it wrote to stdout, as text; bytes that are not UTF-8 become replacement characters."""
        return self.stdout.decode(errors="replace")


def clean_env(**more: str) -> dict[str, str]:
    """Return the minimal environment programs get: PATH, HOME, a UTF-8 locale without translations, and `more`."""
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": os.environ.get("HOME", "/nonexistent"),
        "LC_ALL": "C.UTF-8",
        **more,
    }


def run(
    argv: Sequence[str],
    *,
    timeout: float,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    input: bytes | None = None,
    check: bool = True,
    limit: int = 8 * MIB,
    account: Account | None = None,
) -> Done:
    """Run a program to its end and return what it wrote. `timeout` in seconds, `limit` in bytes of stdout.

    `env` is the whole environment (default `clean_env()`). Secrets never belong into `argv`, which errors show. With
    `account` the program runs as that one and in no other group; only root can do so.
    Raises ProgramMissing, CommandTimeout, TooLarge past the limit, Stopped by a brake, and CommandFailed when `check`
    and the exit code is not 0.
    """
    arguments = tuple(argv)
    with _start(arguments, cwd, clean_env() if env is None else env, input is not None, account) as process:
        pipes = _Pipes(process, arguments[0], input or b"", limit)
        try:
            with stoppable(partial(_kill_group, process)):
                stdout, stderr = pipes.drain(time.monotonic() + timeout)
        except TimeoutError:
            _end_group(process)
            raise _timed_out(arguments, timeout, pipes.error_tail()) from None
        except BaseException:
            _end_group(process)
            raise
        status = process.wait()
    done = Done(arguments, status if status >= 0 else 128 - status, stdout, stderr)
    if check and done.exit_code != 0:
        raise failed(done)
    return done


def failed(done: Done) -> errors.CommandFailed:
    """Return the error that tells of a program's bad end: its command line, exit code and last lines of stderr."""
    tail = _last_lines(done.stderr)
    return errors.CommandFailed(
        f"{shlex.join(done.argv)} ended with exit code {done.exit_code}" + (f":\n{tail}" if tail else ""),
        argv=done.argv,
        exit_status=done.exit_code,
        tail=tail,
    )


def _timed_out(argv: tuple[str, ...], timeout: float, tail: str) -> errors.CommandTimeout:
    return errors.CommandTimeout(
        f"{shlex.join(argv)} did not end within {timeout:g} s and was stopped" + (f":\n{tail}" if tail else ""),
        argv=argv,
        tail=tail,
    )


def _start(
    argv: tuple[str, ...], cwd: Path | None, env: Mapping[str, str], feeds: bool, account: Account | None
) -> _Program:
    if cwd is not None and not cwd.is_dir():
        raise errors.CommandFailed(f"{shlex.join(argv)}: the directory {cwd} does not exist", argv=argv)
    try:
        if account is not None:
            return _OfAccount(argv, cwd, env, feeds, account)
        return subprocess.Popen(
            argv,
            cwd=cwd,
            env=env,
            stdin=subprocess.PIPE if feeds else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
        )
    except FileNotFoundError:
        raise errors.ProgramMissing(f"the program {argv[0]} is not installed, or not on PATH") from None
    except PermissionError:
        raise errors.ProgramMissing(f"the program {argv[0]} may not be executed by this account") from None
    except (OSError, ValueError) as error:  # an argument with a NUL byte, or a list too long for the kernel
        raise errors.CommandFailed(f"{argv[0]} could not be started: {error}", argv=argv) from None


class _OfAccount:
    """A program that runs as another account; what `subprocess.Popen` offers of it as far as it is needed here."""

    def __init__(
        self, argv: tuple[str, ...], cwd: Path | None, env: Mapping[str, str], feeds: bool, account: Account
    ) -> None:
        program = shutil.which(argv[0], path=env.get("PATH", os.defpath))
        if program is None:
            raise FileNotFoundError(argv[0])
        self.stdin: FileIO | None = None
        with contextlib.ExitStack() as theirs, contextlib.ExitStack() as ours:
            source = theirs.enter_context(FileIO(os.devnull))
            if feeds:
                source, self.stdin = _pipe(theirs, ours, reads=True)
            out, self.stdout = _pipe(theirs, ours, reads=False)
            err, self.stderr = _pipe(theirs, ours, reads=False)
            files = (source.fileno(), out.fileno(), err.fileno())
            where, (uid, gid) = cwd or Path.cwd(), account
            self._child = forker.start((program, *argv[1:]), cwd=where, env=env, uid=uid, gid=gid, files=files)
            self._ours = ours.pop_all()
        self.pid, self.wait, self.has_ended = self._child.pid, self._child.wait, self._child.has_ended

    @property
    def returncode(self) -> int | None:
        """How it ended, once that was waited for."""
        return self._child.returncode

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ours.close()
        self.wait()


_Program: TypeAlias = subprocess.Popen[bytes] | _OfAccount


def _pipe(theirs: contextlib.ExitStack, ours: contextlib.ExitStack, *, reads: bool) -> tuple[FileIO, FileIO]:
    """Return the program's end of a pipe, from which it reads or to which it writes, and ours."""
    reading, writing = os.pipe()
    ends = FileIO(reading, "rb"), FileIO(writing, "wb")
    far, near = ends if reads else reversed(ends)
    return theirs.enter_context(far), ours.enter_context(near)


class _Pipes:
    """Feeds stdin and collects stdout and stderr until the program has ended."""

    def __init__(self, process: _Program, name: str, data: bytes, limit: int) -> None:
        self._process = process
        self._name = name
        self._data = memoryview(data)
        self._limit = limit
        self._out, self._err = bytearray(), bytearray()

    def drain(self, deadline: float) -> tuple[bytes, bytes]:
        """Return stdout and stderr; raises TimeoutError at the deadline and TooLarge past the limit."""
        ended_at: float | None = None
        with selectors.DefaultSelector() as selector:
            self._register(selector)
            while selector.get_map():
                ready = selector.select(min(_time_left(deadline), 0.1))
                for key, _ in ready:
                    self._serve(selector, key.fd, key.data)
                if not ready and _has_ended(self._process):
                    ended_at = ended_at or time.monotonic()
                    if time.monotonic() - ended_at > _STRAGGLER_GRACE:
                        _end_group(self._process)
                        break
        pause = 0.00005
        while not _has_ended(self._process):  # it closed its output but still runs
            time.sleep(min(_time_left(deadline), pause))
            pause = min(pause * 2, 0.05)
        return bytes(self._out), bytes(self._err)

    def error_tail(self) -> str:
        """The last lines of stderr so far."""
        return _last_lines(bytes(self._err))

    def _register(self, selector: selectors.BaseSelector) -> None:
        process = self._process
        for pipe, event, kept in (
            (process.stdin, selectors.EVENT_WRITE, None),
            (process.stdout, selectors.EVENT_READ, self._out),
            (process.stderr, selectors.EVENT_READ, self._err),
        ):
            if pipe is not None:
                os.set_blocking(pipe.fileno(), False)
                selector.register(pipe.fileno(), event, kept)

    def _serve(self, selector: selectors.BaseSelector, pipe: int, kept: bytearray | None) -> None:
        if kept is None:
            if not self._feed(pipe):
                selector.unregister(pipe)
                self._process.stdin.close()  # type: ignore[union-attr]  # only a process with stdin is fed
            return
        piece = os.read(pipe, _PIECE)
        if not piece:
            selector.unregister(pipe)
        kept += piece
        if kept is self._err:
            del kept[:-_TAIL_BYTES]
        elif len(kept) > self._limit:
            raise errors.TooLarge(f"{self._name} wrote more than {self._limit} bytes")

    def _feed(self, pipe: int) -> bool:
        """Write what the pipe takes; False when all is written or nobody reads any more."""
        try:
            written = os.write(pipe, self._data[:_PIECE]) if self._data else 0
        except (BrokenPipeError, ConnectionResetError):
            return False
        self._data = self._data[written:]
        return bool(self._data)


def _time_left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _has_ended(process: _Program) -> bool:
    """Look without reaping: while the leader is a zombie, its group number cannot be given to a stranger."""
    if isinstance(process, _OfAccount):
        return process.has_ended()
    if process.returncode is not None:
        return True
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _end_group(process: _Program) -> None:
    """End a program and everything it started in its group."""
    if process.returncode is None:
        _kill_group(process)
        process.wait()


def _kill_group(process: _Program) -> None:
    """End a program's group without reaping it, so that another thread may wait for it meanwhile."""
    _signal_group(process.pid, signal.SIGTERM)
    limit = time.monotonic() + _TERM_GRACE
    while not _has_ended(process) and time.monotonic() < limit:
        time.sleep(0.005)
    _signal_group(process.pid, signal.SIGKILL)


def _signal_group(group: int, number: signal.Signals) -> None:
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):  # all gone, or (macOS) only zombies are left
        return


def _last_lines(stderr: bytes) -> str:
    """Return the last lines as text in which no control character can act on a terminal or a log."""
    lines = stderr.decode(errors="replace").replace("\r", "\n").strip().split("\n")[-_TAIL_LINES:]
    return "\n".join(
        "".join(c if c.isprintable() or c == "\t" else "\N{REPLACEMENT CHARACTER}" for c in line) for line in lines
    )
