"""Runs commands in one container, which is made for the first of them and holds what each leaves for the next.

A command is a `docker exec` of the agent's own account, started like any command of this machine: its output and its
exit code go on when the agent does not. Its variables come to it by a file that only its account can read.
"""

from __future__ import annotations

import contextlib
import math
import os
import shlex
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from keepflow import errors
from keepflow.core.boxes import Box, box_argv, command_argv
from keepflow.executors.shell import MARK, Account, Process, Shell
from keepflow.ports import Command
from keepflow.tools.engine import Engine

_SECONDS = 30.0  #: for the engine to end or remove a container


class Docker:
    """Starts commands in a box. `handed` is the host's side of `boxes.HANDED`, which only the agent writes."""

    def __init__(self, box: Box, engine: Engine, handed: Path, account: Account | None = None) -> None:
        self._box, self._engine, self._handed, self._account = box, engine, handed, account
        self._lock = threading.Lock()
        self._made = self._runs = False

    def start(self, command: Command, output: BinaryIO, result: Path) -> _InBox:
        """Start the command; its exit code also comes to the file `result`, as one line that ends with a newline.

        It runs where the box has its checkout, whatever `cwd` says. A program that is missing in the image is told by
        exit code 127. Raises Unavailable when the container cannot be made or started.
        """
        self.make()
        variables = f"{self._box.name}-{result.name}"
        mark = command.env.get(MARK)
        self._hand(variables, {name: value for name, value in command.env.items() if name != MARK})
        env = {**self._engine.env, **({MARK: mark} if mark else {})}
        argv = ("docker", *command_argv(self._box.name, variables, command.argv))
        return _InBox(self, Shell().start(Command(argv, env, self._handed), output, result))

    def find(self, mark: str | None, result: Path) -> _InBox | None:
        """Take up a command that an earlier process of the agent started in this box; None when it never began.

        Raises Unavailable `processes-gone` when it is gone without having told how it ended.
        """
        found = Shell().find(mark, result)
        return _InBox(self, found) if found else None

    def make(self) -> None:
        """Have the container run: made when it is not there, started when it was stopped. Raises Unavailable.

        One that an earlier process of the agent made under this name is this one, with all that was left in it.
        """
        with self._lock:
            try:
                if not self._made:
                    self._made = True
                    self._engine.make_once(*box_argv(self._box))
                if not self._runs:
                    self._engine.docker("start", self._box.name)
                    self._runs = True
            except errors.CommandFailed as error:
                self._remove()
                raise errors.Unavailable(_why(error), code="container-failed") from error

    def stop(self, grace: float) -> None:
        """End everything in the container: SIGTERM, SIGKILL after `grace` seconds. Raises CommandFailed."""
        self._runs = False
        seconds = str(math.ceil(grace))
        self._engine.docker("stop", "--time", seconds, self._box.name, timeout=grace + _SECONDS)

    def remove(self) -> None:
        """End and remove the container. Raises Unavailable."""
        with self._lock:
            self._remove()

    def _remove(self) -> None:
        try:
            self._engine.docker("rm", "--force", "--volumes", self._box.name, timeout=_SECONDS)
        except errors.CommandFailed as error:
            if "o such container" not in error.tail:
                raise errors.Unavailable(f"a container could not be removed: {error.tail}", code="engine") from error
        self._made = self._runs = False

    def _hand(self, name: str, env: Mapping[str, str]) -> None:
        """Lay down the variables of one command, readable for its account alone."""
        text = "".join(f"export {key}={shlex.quote(value)}\n" for key, value in env.items())
        (self._handed / name).unlink(missing_ok=True)  # of an agent that was killed before the command began
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(self._handed / name, flags, 0o400), "wb") as file:
            if self._account:
                os.fchown(file.fileno(), self._account.uid, self._account.gid)
            file.write(text.encode())


class _InBox:
    """A command that was started in a box. Ending it stops the box: only the engine can end what runs in it."""

    def __init__(self, box: Docker, process: Process) -> None:
        self._box, self._process = box, process
        self.pid = process.pid

    def wait(self, timeout: float | None = None) -> int | None:
        """Return the exit code (128+n for signal n), or None when it still runs after `timeout` seconds."""
        return self._process.wait(timeout)

    def kill(self, grace: float) -> None:
        """End the command and all that runs in its container: SIGTERM, SIGKILL after `grace` seconds."""
        if self._process.wait(0) is not None:
            return
        with contextlib.suppress(errors.CommandFailed):  # it is gone, or is removed with its job
            self._box.stop(grace)
        if self._process.wait(_SECONDS) is None:
            self._process.kill(0)


def _why(error: errors.CommandFailed) -> str:
    """Say why a container could not be made, in the engine's last words."""
    words = error.tail.strip().splitlines()
    last = words[-1].removeprefix("docker: ").removeprefix("Error response from daemon: ") if words else str(error)
    if '"sh"' in last:
        return f"the image has no `sh`, which commands of a flow need: {last}"
    if "storage-opt" in last or "pquota" in last:
        return f"this engine cannot limit the disk of a container; take `disk` out of agent.yml: {last}"
    return f"the container could not be started: {last}"
