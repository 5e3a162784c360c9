"""Programs started as another account by a small process (`_forker`), and waited for."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from keepflow.tools import _forker

_LOST = -signal.SIGKILL  #: how a command ended of which nothing is known: its forker was killed, and it too


class Child:
    """A program that the forker started; like `subprocess.Popen` as far as it goes.

    `last_resort` is asked how it ended when the forker cannot tell any more.
    """

    def __init__(self, pid: int, reap: Callable[[int], int | None], last_resort: Callable[[], int | None]) -> None:
        self.pid = pid
        self._reap, self._last_resort = reap, last_resort
        self._lock = threading.Lock()
        self._status: int | None = None
        self._descriptor = _pidfd(pid)

    @property
    def returncode(self) -> int | None:
        """How it ended, once somebody has waited for it; its number may belong to another process then."""
        return self._status

    def poll(self) -> int | None:
        """Return how it ended (-n for signal n), or None while it runs."""
        return self._end() if self._has_ended(0) else None

    def wait(self) -> int:
        """Return how it ended, once it has."""
        self._has_ended(None)
        return self._end()

    def has_ended(self) -> bool:
        """Say whether it has ended, and leave its number taken."""
        return self._has_ended(0)

    def _has_ended(self, timeout: int | None) -> bool:
        if self._status is not None or self._descriptor is None:
            return True
        waiting = select.poll()
        waiting.register(self._descriptor, select.POLLIN)
        return bool(waiting.poll(timeout))

    def _end(self) -> int:
        with self._lock:
            if self._status is None:
                told = self._reap(self.pid)
                told = self._last_resort() if told is None else told
                self._status = _LOST if told is None else told
        return self._status

    def __del__(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)


class Forker:
    """Starts the small process when it is first needed, and again when somebody ended it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connection: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        atexit.register(self.close)

    def close(self) -> None:
        """End the small process; what it has started goes on."""
        with self._lock:
            self._part()

    def start(
        self,
        argv: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        uid: int,
        gid: int,
        groups: Sequence[int] = (),
        umask: int | None = None,
        files: tuple[int, int, int],
        last_resort: Callable[[], int | None] = lambda: None,
    ) -> Child:
        """Start a program in a session of its own; `argv[0]` is a path, `files` are its first three descriptors.

        Raises OSError.
        """
        request: dict[str, Any] = {"argv": list(argv), "cwd": str(cwd), "env": dict(env), "umask": umask}
        request |= {"uid": uid, "gid": gid, "groups": list(groups)}
        answer, connection = self._ask(request, files)
        if "error" in answer:
            raise OSError(answer["number"], answer["error"])
        return Child(int(answer["pid"]), lambda pid: self._reap(pid, connection), last_resort)

    def _reap(self, pid: int, connection: socket.socket) -> int | None:
        with contextlib.suppress(OSError):
            if connection is self._connection:
                return _status(self._ask({"reap": pid})[0])
        return None

    def _ask(self, request: dict[str, Any], descriptors: Sequence[int] = ()) -> tuple[dict[str, Any], socket.socket]:
        with self._lock:
            try:
                connection = self._send(request, descriptors)
            except ConnectionError:  # somebody ended it, before it could begin anything
                self._part()
                connection = self._send(request, descriptors)
            try:
                return json.loads(_line(connection)), connection
            except OSError:
                self._part()
                raise

    def _send(self, request: dict[str, Any], descriptors: Sequence[int]) -> socket.socket:
        connection = self._connection or self._launch()
        head, body = _forker.frame(request)
        socket.send_fds(connection, [head], descriptors)
        connection.sendall(body)
        return connection

    def _launch(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                (sys.executable, "-I", "-S", _forker.__file__, str(theirs.fileno())),
                cwd="/",
                env={},
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        self._connection = ours
        return ours

    def _part(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._process is not None:
            self._process.wait()
            self._process = None


#: The one of this process.
forker = Forker()


def _line(connection: socket.socket) -> bytes:
    data = b""
    while not data.endswith(b"\n"):
        piece = connection.recv(65536)
        if not piece:
            raise ConnectionResetError("the process that starts programs as another account was ended")
        data += piece
    return data


def _status(answer: dict[str, Any]) -> int | None:
    status = answer["status"]
    return None if status is None else int(status)


def _pidfd(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:  # its forker was killed, and whoever inherited it has reaped it
        return None
