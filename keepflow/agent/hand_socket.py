"""The running agent's ear for `keepflow agent rollback` on its own host: a Unix socket for the agent's account alone.

A person who goes back counts milliseconds, and a new process needs hundreds of them to read its modules, the journals
and the host's file. The agent has all that in hand. What it does is `by_hand.roll_back`, as a process without it does.

One request a connection, one line: `rollback`, service, instance, the release's beginning or nothing, and who asks,
with a NUL between. The answer is lines: `e…` for stderr, `o…` for stdout, and last `x` with the exit code. An answer
without `x` means that nothing is known of the end: who asked then does it without the agent, which settles first what
was begun, and says what is wrong in its own words.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from keepflow.agent import by_hand
from keepflow.agent.deployer import Deployer
from keepflow.agent.logs import Log
from keepflow.core.states import Phase
from keepflow.errors import DeployFailed, KeepflowError

log = Log(__name__)

NAME = "hand.sock"
_LONGEST = 1024  #: bytes of a request
_SECONDS = 5.0  #: for a request to arrive


class HandSocket:
    """Listens in the agent's directory. `ended` is called when a rollback ended, so that the master hears of it now."""

    def __init__(self, root: Path, deployer: Callable[[Callable[[str], None]], Deployer], ended: Callable[[], None]):
        """`deployer` makes the one that carries requests out, told whom it speaks to; it is made when listening."""
        self._root = root
        self._make = deployer
        self._ended = ended
        self._free: list[_Desk] = []

    def start(self) -> None:
        """Listen from now on, in a thread of its own; a socket file that a dead agent left is replaced."""
        (self._root / NAME).unlink(missing_ok=True)
        listening = socket.socket(socket.AF_UNIX)
        directory = os.open(self._root, os.O_PATH | os.O_DIRECTORY)
        try:
            listening.bind(f"/proc/self/fd/{directory}/{NAME}")  # an address has 107 bytes, however deep the root lies
        finally:
            os.close(directory)
        (self._root / NAME).chmod(0o600)
        listening.listen(4)
        threading.Thread(target=self._serve, args=(listening,), name="by-hand", daemon=True).start()

    def _serve(self, listening: socket.socket) -> None:
        self._free.append(_Desk(self._make))
        while True:
            asking, _ = listening.accept()
            # A thread for each: who asks while another rollback is under way is told at once whom it waits for.
            threading.Thread(target=self._attend, args=(asking,), name="by-hand", daemon=True).start()

    def _attend(self, asking: socket.socket) -> None:
        try:
            desk = self._free.pop()
        except IndexError:
            desk = _Desk(self._make)
        try:
            with asking:
                asking.settimeout(_SECONDS)
                desk.serve(asking, self._ended)
        finally:
            self._free.append(desk)


class _Desk:
    """One deployer, for one who asks at a time."""

    def __init__(self, make: Callable[[Callable[[str], None]], Deployer]) -> None:
        self._asking: socket.socket | None = None
        self._deployer = make(self._say)

    def serve(self, asking: socket.socket, ended: Callable[[], None]) -> None:
        """Answer one request."""
        self._asking = asking
        try:
            self._answer(asking, ended)
        finally:
            self._asking = None

    def _answer(self, asking: socket.socket, ended: Callable[[], None]) -> None:
        try:
            verb, service, instance, to, by = _line(asking).split("\0")
        except (OSError, ValueError):
            return
        if verb != "rollback":
            return
        log.info("a person on this host goes back", service=service, instance=instance, by=by)
        self._deployer.patience = by_hand.AT_ONCE
        try:
            outcome = by_hand.roll_back(self._deployer, service, instance, to, by, self._say)
        except KeepflowError as error:
            if error.code == "instance-busy":  # it was waited for here; the process that asked need not do so again
                self._say(error.message)
                self._send("x", str(error.exit_code))
                return
            log.warning("going back is left to the process that asked", code=error.code, why=error.message)
            return
        except Exception as error:  # the agent serves on: whoever asked goes on alone
            log.broke("going back met a bug", error)
            return
        finally:
            ended()
        if outcome.log_tail:
            self._say(outcome.log_tail)
        code = 0 if outcome.outcome == Phase.DONE else DeployFailed.exit_code
        self._send("o", outcome.sentence)
        self._send("x", str(code))

    def _say(self, text: str) -> None:
        self._send("e", text)

    def _send(self, kind: str, text: str) -> None:
        if self._asking is not None:
            with suppress(OSError):  # who asked went away; what was accepted ends all the same
                self._asking.sendall("".join(f"{kind}{line}\n" for line in text.splitlines()).encode())


def _line(asking: socket.socket) -> str:
    """Return the request; raises ValueError when it is no line, and OSError when it does not come."""
    data = b""
    while not data.endswith(b"\n"):
        part = asking.recv(_LONGEST)
        data += part
        if not part or len(data) > _LONGEST:
            raise ValueError("not a request")
    return data[:-1].decode()
