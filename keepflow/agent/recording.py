"""The output of one job on its way to the log: pipe → `cat` → raw file → sieve → masked log.

When this process dies, output still reaches the raw file. The next one takes the recording up: it puts a mark of its
own into the pipe, and once that has come through it knows what was said before it, and says nothing twice.
"""

from __future__ import annotations

import os
import secrets
import threading
from collections import deque
from collections.abc import Callable, Iterable

from keepflow import errors
from keepflow.agent.attempts import Attempt, AttemptLog
from keepflow.agent.kernel import Watch, free_start
from keepflow.agent.pipe import Pipe
from keepflow.agent.sieve import STEP_LIMIT, STEP_TAIL, Checkpoint, Sieve
from keepflow.core.masking import Masker, Sought

_REST = 0.004  #: seconds between two looks while output flows; the first byte after silence never waits


class Recording:
    """Records one attempt. `output` is what commands write to; all text for the log goes through here.

    Nobody waits for the log: who wants to know where in it a step began or ended gives a function, which is called
    with the offset, in the thread of the recording, once the log has come there. `marks` counts what began and ended
    (a step twice, the whole once), those before a restart included; `passed` says where in the log the last of these
    are.
    """

    def __init__(
        self, attempt: Attempt, needles: Sought, account: tuple[int, int] | None = None, limit: int = STEP_LIMIT
    ) -> None:
        self._raw = _RawLog(attempt, needles, limit)
        self._watch = Watch(self._raw.path)
        self._pipe = Pipe(attempt.directory, self._raw.path, account)
        self.output = self._pipe.output
        self._mark = b"\x1e" + attempt.nonce.encode()
        self._line, self._sync, self._word = (self._mark + kind for kind in (b"L\n", b"S\n", b"W\n"))
        self._awaited: deque[Callable[[int], None]] = deque()
        self._passed = 0
        self._again = b""
        self._caught_up = threading.Event()
        self._closing = False
        self._failure: OSError | None = None
        self._thread = threading.Thread(target=self._pump, name=f"log-{attempt.fence}", daemon=True)
        self._thread.start()
        self.marks, self._repeated, self.passed = 0, 0, dict[int, int]()
        if self._pipe.taken_up:
            self._take_up()

    def say(self, text: str) -> None:
        """Add text to the log, in its place among the job's own output; what this step had said before is left out."""
        self._once(text.encode(errors="replace"))

    def tell(self, text: str) -> None:
        """Add one line as `say_line` does; what had been told before a restart is left out, as `say` does."""
        self._once(self._whole_line(text))

    def say_line(self, text: str) -> None:
        """Add one line to the log that begins at the start of a line, whatever the job wrote last."""
        self._write(self._whole_line(text))

    def begin_step(self, line: str, then: Callable[[int], None]) -> None:
        """Begin a step's part of the log with this line; `then` is told where."""
        self._await(then)
        self._write(self._sync + self._whole_line(line))

    def end_step(self, line: str, then: Callable[[int], None]) -> None:
        """End a step's part of the log with this line; `then` is told where."""
        self._await(then)
        self._write(self._whole_line(line) + self._sync)

    def end(self, lines: Iterable[str]) -> None:
        """End the log with these lines."""
        self._await(lambda _: None)
        self._write(b"".join(map(self._whole_line, lines)) + self._sync)

    def close(self) -> None:
        """End the recording when no process of the job is left; everything written is in the log then."""
        self._pipe.close()
        self._closing = True
        self._watch.wake()
        self._thread.join()
        self._watch.close()
        try:
            if self._failure is None:
                self._raw.sieve.finish()
                self._tell()
        finally:
            self._raw.close()

    def _once(self, data: bytes) -> None:
        if self._repeated:
            self._repeated -= 1
        else:
            self._write(data + self._word)

    def _await(self, then: Callable[[int], None]) -> None:
        self._awaited.append(then)
        self.marks += 1
        self._repeated = 0

    def _take_up(self) -> None:
        """Find out what was said before this process, once all of it has come through the pipe."""
        self._again = secrets.token_hex(4).encode()
        self._write(self._mark + b"A" + self._again + b"\n")
        self._caught_up.wait()
        if self._failure is not None:
            raise errors.Unavailable(f"the log cannot be written: {self._failure.strerror}", code="log-lost")
        before, sieve = self._raw.before, self._raw.sieve
        self.marks, self._repeated = before.syncs + len(sieve.syncs), sieve.words
        offsets = enumerate(sieve.syncs, before.syncs + 1)
        self.passed = {before.syncs: before.log, **dict(offsets)} if before.syncs and not before.cut else dict(offsets)

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
            self._caught_up.set()

    def _tell(self) -> None:
        """Tell where the marks are that were passed; the last one, at the end of everything, is nobody's."""
        for offset in self._raw.sieve.syncs[self._passed :]:
            self._passed += 1
            if self._awaited:
                self._awaited.popleft()(offset)
        if self._again and self._raw.sieve.again == self._again:
            self._caught_up.set()


def forget(attempt: Attempt) -> None:
    """Take away the raw output of a closed recording that nobody takes up any more: nothing unmasked stays."""
    (attempt.directory / "raw").unlink(missing_ok=True)


class _RawLog:
    """The raw file and how far it was worked off; freed as it goes."""

    def __init__(self, attempt: Attempt, needles: Sought, limit: int) -> None:
        self.path = attempt.directory / "raw"
        self._log = attempt.log
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._checkpoint_file = os.open(attempt.directory / "checkpoint", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.before = self._kept = self._read_checkpoint()
        self._freed = 0
        self._skip = max(0, attempt.log.size - self._kept.log)
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

    def close(self) -> None:
        """Give the files back."""
        os.close(self._file)
        os.close(self._checkpoint_file)

    def _emit(self, data: bytes) -> None:
        skipped = min(self._skip, len(data))
        self._skip -= skipped
        if len(data) > skipped:
            self._log.append(data[skipped:])

    def _keep(self, checkpoint: Checkpoint) -> None:
        numbers = (checkpoint.raw, checkpoint.log, int(checkpoint.cut), checkpoint.syncs, checkpoint.words)
        os.pwrite(self._checkpoint_file, b"%020d %020d %d %010d %010d\n" % numbers, 0)
        self._kept = checkpoint

    def _read_checkpoint(self) -> Checkpoint:
        fields = os.pread(self._checkpoint_file, 128, 0).split()
        if len(fields) != 5:
            return Checkpoint()
        raw, log, cut, syncs, words = map(int, fields)
        return Checkpoint(raw, log, bool(cut), syncs, words)


def _line_starts(log: AttemptLog, offset: int) -> bool:
    return log.last_byte(offset) in (b"", b"\n")
