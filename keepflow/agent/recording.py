"""The output of one job on its way to the log: pipe → `cat` → raw file → sieve → masked log.

The job writes into a pipe and not into the file, because `echo … > /dev/stderr` opens its own output anew and would cut
a file short. `cat` stands between so that a job outlives the agent: when this process dies, output still reaches the
raw file, and a new agent can finish the log from there (`complete`).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from keepflow import errors
from keepflow.agent.attempts import Attempt, AttemptLog
from keepflow.agent.kernel import Watch, free_start
from keepflow.agent.sieve import STEP_LIMIT, STEP_TAIL, Checkpoint, Sieve
from keepflow.core.masking import Masker, Sought

_REST = 0.004  #: seconds between two looks while output flows; the first byte after silence never waits
_CAT_LIMIT = 2.0  #: seconds for `cat` to write what is left after the last process of a job


class Recording:
    """Records one attempt. `output` is what commands write to; all text for the log goes through here.

    Nobody waits for the log: who wants to know where in it a step began or ended gives a function, which is called
    with the offset, in the thread of the recording, once the log has come there.
    """

    def __init__(
        self, attempt: Attempt, needles: Sought, account: tuple[int, int] | None = None, limit: int = STEP_LIMIT
    ) -> None:
        self._raw = _RawLog(attempt, needles, limit)
        self._watch = Watch(self._raw.path)
        self._cat, self.output = _start_cat(self._raw.path, account)
        self._line, self._sync = _marks(attempt.nonce)
        self._awaited: deque[Callable[[int], None]] = deque()
        self._passed = 0
        self._closing = False
        self._failure: OSError | None = None
        self._thread = threading.Thread(target=self._pump, name=f"log-{attempt.fence}", daemon=True)
        self._thread.start()

    def say(self, text: str) -> None:
        """Add text to the log, in its place among the job's own output."""
        self._write(text.encode(errors="replace"))

    def say_line(self, text: str) -> None:
        """Add one line to the log that begins at the start of a line, whatever the job wrote last."""
        self._write(self._whole_line(text))

    def begin_step(self, line: str, then: Callable[[int], None]) -> None:
        """Begin a step's part of the log with this line; `then` is told where."""
        self._awaited.append(then)
        self._write(self._sync + self._whole_line(line))

    def end_step(self, line: str, then: Callable[[int], None]) -> None:
        """End a step's part of the log with this line; `then` is told where."""
        self._awaited.append(then)
        self._write(self._whole_line(line) + self._sync)

    def close(self) -> None:
        """End the recording when no process of the job is left; everything written is in the log then."""
        self.output.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._cat.wait(_CAT_LIMIT)
        self._closing = True
        self._watch.wake()
        self._thread.join()
        self._cat.kill()
        self._cat.wait()
        self._watch.close()
        try:
            if self._failure is None:
                self._raw.sieve.finish()
                self._tell()
        finally:
            self._raw.close()

    def _whole_line(self, text: str) -> bytes:
        return self._line + text.encode(errors="replace") + b"\n"

    def _write(self, data: bytes) -> None:
        if self._failure is not None:
            raise errors.Unavailable(f"the log cannot be written: {self._failure.strerror}", code="log-lost")
        view = memoryview(data)
        try:
            while view:
                view = view[self.output.write(view) :]
        except BrokenPipeError:
            raise errors.Unavailable("the log cannot be written any more; is the disk full?", code="log-lost") from None

    def _pump(self) -> None:
        try:
            while not self._closing:
                self._watch.wait()
                while self._raw.take():
                    self._tell()
                self._watch.rest(_REST)
        except OSError as error:
            self._failure = error

    def _tell(self) -> None:
        """Tell where the marks are that were passed; the last one, at the end of everything, is nobody's."""
        for offset in self._raw.sieve.syncs[self._passed :]:
            self._passed += 1
            if self._awaited:
                self._awaited.popleft()(offset)


def complete(attempt: Attempt, needles: Sought, last_line: str) -> None:
    """Finish the log of an attempt whose recording was broken off, from the raw output on the disk; add a last line.

    All processes of the attempt must have been ended.
    """
    raw = _RawLog(attempt, needles, STEP_LIMIT)
    try:
        raw.await_writer(_CAT_LIMIT)
        raw.sieve.finish()
    finally:
        raw.close()
    attempt.log.append(last_line.encode() + b"\n")


class _RawLog:
    """The raw file and how far it was worked off; freed as it goes."""

    def __init__(self, attempt: Attempt, needles: Sought, limit: int) -> None:
        self.path = attempt.directory / "raw"
        self._log = attempt.log
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._checkpoint_file = os.open(attempt.directory / "checkpoint", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._kept = self._read_checkpoint()
        self._freed = 0
        self._skip = attempt.log.size - self._kept.log
        self.sieve = Sieve(
            lambda offset, size: os.pread(self._file, size, offset),
            self._emit,
            lambda: Masker(needles),
            attempt.nonce,
            self._kept,
            at_line_start=_line_starts(attempt.log, self._kept.log),
            limit=limit,
            tail=STEP_TAIL,
        )

    def take(self) -> bool:
        """Work on the next piece; False when there is none now."""
        taken = self.sieve.take()
        if self.sieve.checkpoint is not self._kept:
            self._keep(self.sieve.checkpoint)
        if self.sieve.spent > self._freed:
            free_start(self._file, self._freed, self.sieve.spent)
            self._freed = self.sieve.spent
        return taken

    def await_writer(self, timeout: float) -> None:
        """Wait until no `cat` of an earlier agent writes to the file any more."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            time.sleep(0.01)

    def close(self) -> None:
        """Give the files back and take the raw file away: nothing unmasked stays."""
        os.close(self._file)
        os.close(self._checkpoint_file)
        self.path.unlink(missing_ok=True)

    def _emit(self, data: bytes) -> None:
        skipped = min(self._skip, len(data))
        self._skip -= skipped
        if len(data) > skipped:
            self._log.append(data[skipped:])

    def _keep(self, checkpoint: Checkpoint) -> None:
        text = f"{checkpoint.raw:020d} {checkpoint.log:020d} {checkpoint.cut:d}\n"
        os.pwrite(self._checkpoint_file, text.encode(), 0)
        self._kept = checkpoint

    def _read_checkpoint(self) -> Checkpoint:
        fields = os.pread(self._checkpoint_file, 64, 0).split()
        if len(fields) != 3:
            return Checkpoint()
        return Checkpoint(int(fields[0]), int(fields[1]), cut=fields[2] == b"1")


def _start_cat(raw: Path, account: tuple[int, int] | None) -> tuple[subprocess.Popen[bytes], BinaryIO]:
    """Start `cat` into the raw file and return it with the pipe's write end.

    It holds a lock on the file, by which a restarted agent sees that it still writes. The pipe belongs to the job's
    account, or that account could not open /dev/stdout.
    """
    reading, writing = os.pipe()
    try:
        if account:
            os.fchown(writing, *account)
        with raw.open("ab", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            cat = subprocess.Popen(
                ("cat",), stdin=reading, stdout=file, stderr=subprocess.DEVNULL, start_new_session=True
            )
    finally:
        os.close(reading)
    return cat, os.fdopen(writing, "wb", buffering=0)


def _marks(nonce: str) -> tuple[bytes, bytes]:
    return b"\x1e" + nonce.encode() + b"L\n", b"\x1e" + nonce.encode() + b"S\n"


def _line_starts(log: AttemptLog, offset: int) -> bool:
    return log.last_byte(offset) in (b"", b"\n")
