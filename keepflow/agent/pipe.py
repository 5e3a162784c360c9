"""The pipe that a job writes into, and the `cat` that brings it to the raw file; both outlive the agent.

The job writes into a pipe and not into the file, because `echo … > /dev/stderr` opens its own output anew and would cut
a file short. The pipe has a name in the attempt's directory, so that a restarted agent writes into the same one: what
it says stands behind everything that was printed before, also when nothing of that has reached the file yet.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import threading
from pathlib import Path

_LIMIT = 2.0  #: seconds for `cat` to write what is left after the last process of a job


class Pipe:
    """One end of the pipe of an attempt: `output` is what commands write to. `account` is who may open it anew."""

    def __init__(self, directory: Path, raw: Path, account: tuple[int, int] | None = None) -> None:
        name = directory / "output"
        self.taken_up = name.exists()  #: whether an earlier process of the agent made it
        if not self.taken_up:
            os.mkfifo(name, 0o600)
        if account:  # or it could not open /dev/stdout
            os.chown(name, *account)
        self._raw = raw
        self._lock = threading.Lock()
        self._cat: subprocess.Popen[bytes] | None = None
        # Held until a `cat` of ours reads: what an ending one of an earlier agent leaves behind must not be lost.
        self._reading: int | None = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self.output = os.fdopen(os.open(name, os.O_WRONLY | os.O_CLOEXEC), "wb", buffering=0)
        os.set_blocking(self._reading, True)
        self._relieving: threading.Thread | None = None
        if not self._begin(wait=False):
            self._relieving = threading.Thread(target=self._begin, name="relieve-cat", daemon=True)
            self._relieving.start()

    def close(self) -> None:
        """Close our end and wait until everything written has reached the file; nobody else may write any more."""
        self.output.close()
        with self._lock:
            self._let_go()
        if self._relieving:  # it ends with the `cat` of the earlier agent
            self._relieving.join(_LIMIT)
        if self._cat:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._cat.wait(_LIMIT)
            self._cat.kill()
            self._cat.wait()

    def _begin(self, *, wait: bool = True) -> bool:
        """Start a `cat`; False while that of an earlier agent lives. Each holds a lock on the file as long as it does.

        Two at once would mix up what they read.
        """
        with self._raw.open("ab", buffering=0) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                return False
            with self._lock:
                if self._reading is not None:
                    self._cat = subprocess.Popen(
                        ("cat",), stdin=self._reading, stdout=file, stderr=subprocess.DEVNULL, start_new_session=True
                    )
                    self._let_go()
        return True

    def _let_go(self) -> None:
        if self._reading is not None:
            os.close(self._reading)
            self._reading = None
