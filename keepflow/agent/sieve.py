"""From the raw output of a job to the log that may leave the host: masked, folded, cut to size; the same on a replay.

The agent's own marks travel inside the raw stream, so they have an exact place in it: `line` begins a fresh line,
`sync` ends a step, `word` ends a text that a step said, `again` is where a restarted agent took up the stream. They
carry a nonce no job is ever told. What comes out depends on the bytes alone, never on how they were cut into pieces:
that is why a restarted agent can take up a log in the middle of a step, and knows by the marks what it had said.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from keepflow.agent.folding import Fold

PIECE = 64 * 1024
STEP_LIMIT = 50 * 1024 * 1024  #: bytes of log one step may write before it is cut
STEP_TAIL = 1024 * 1024  #: bytes of raw output kept from the end of a step that was cut
_CUT = "\n── this step's log is cut here, after {limit:,} bytes; the step goes on, its end follows ──\n"
_TAIL = "── the last lines of the step ──\n"
_LONGEST_KIND = 9  #: bytes of a mark after its nonce, without the line end


class Masks(Protocol):
    """What replaces secrets in a stream; may hold bytes back that could be the start of a secret."""

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes and return what is sure."""

    def flush(self) -> bytes:
        """Return what was held back: the stream ends here."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A place where nothing is held back: `raw` bytes gave `log` bytes; `cut`: the rest of the step is left out.

    `syncs` and `words` are the marks before it: of the whole stream, and of the step.
    """

    raw: int = 0
    log: int = 0
    cut: bool = False
    syncs: int = 0
    words: int = 0


class Sieve:
    """Turns raw bytes into log bytes. `read(offset, size)` gives raw bytes, `emit` takes log bytes."""

    def __init__(
        self,
        read: Callable[[int, int], bytes],
        emit: Callable[[bytes], None],
        masks: Callable[[], Masks],
        nonce: str,
        checkpoint: Checkpoint = Checkpoint(),
        *,
        at_line_start: bool = True,
        limit: int = STEP_LIMIT,
        tail: int = STEP_TAIL,
    ) -> None:
        self._read, self._emit, self._new_masks = read, emit, masks
        self._masks, self._fold = masks(), Fold()
        self._mark = b"\x1e" + nonce.encode()
        self._marks = re.compile(self._mark + rb"([LSW]|A[0-9a-f]{8})\n")
        self._limit, self._tail = limit, tail
        self._at_line_start = at_line_start
        self._raw = self._step = checkpoint.raw
        self._log = checkpoint.log
        self._cut_at = checkpoint.raw if checkpoint.cut else None
        self._syncs = checkpoint.syncs
        self.checkpoint = checkpoint
        self.syncs: list[int] = []  #: log offset at every `sync` mark that was passed
        self.words = checkpoint.words  #: `word` marks of this step that were passed
        self.again = b""  #: name of the last `again` mark that was passed

    def take(self) -> bool:
        """Work on the next piece of raw output; False when there is none, or only what may be the start of a mark."""
        piece = self._read(self._raw, PIECE)
        mark = self._marks.search(piece)
        end = mark.start() if mark else len(piece) - self._maybe_mark(piece)
        if not end and not mark:
            return False
        self._pass(piece[:end])
        if mark:
            self._meet(mark[1], len(mark[0]))
        return True

    def finish(self) -> None:
        """Give out everything that is still held: the stream ends here, in the middle of a step or not."""
        while self.take():
            pass
        self._pass(self._read(self._raw, PIECE))
        self._reach(b"L")
        self._end_step()

    @property
    def spent(self) -> int:
        """Raw bytes below this offset will never be read again."""
        return self.checkpoint.raw if self._cut_at is None else max(self._cut_at, self._raw - self._tail)

    def _meet(self, kind: bytes, length: int) -> None:
        """Pass a mark; between the bytes before and after a `word` or an `again` nothing ends, not even a secret."""
        if kind in (b"L", b"S"):
            self._reach(kind)
            self._step = self._raw + length
        self._raw += length
        if kind == b"S":
            self._end_step()
        elif kind == b"W":
            self.words += 1
        elif kind != b"L":
            self.again = kind[1:]

    def _maybe_mark(self, piece: bytes) -> int:
        """Return how many bytes at the end could be the start of a mark."""
        start = piece.rfind(b"\x1e", max(0, len(piece) - len(self._mark) - _LONGEST_KIND))
        tail = piece[start:] if start >= 0 else b""
        return len(tail) if self._mark.startswith(tail) or tail.startswith(self._mark) else 0

    def _pass(self, data: bytes) -> None:
        """Mask raw bytes; past the limit they are counted only."""
        self._raw += len(data)
        if self._cut_at is not None:
            return
        over = self._raw - self._step - self._limit
        self._put(self._fold.feed(self._masks.feed(data[:-over] if over > 0 else data)))
        if over > 0:
            self._cut_at = self._step + self._limit
            self._put(self._fold.flush())
            self._put(_CUT.format(limit=self._limit).encode())  # what the masks hold may be half a secret: dropped
            self.checkpoint = Checkpoint(self._cut_at, self._log, True, self._syncs, self.words)

    def _put(self, data: bytes) -> None:
        if data:
            self._emit(data)
            self._log += len(data)
            self._at_line_start = data.endswith(b"\n")

    def _reach(self, kind: bytes) -> None:
        """End what came before a mark."""
        if self._cut_at is None:
            self._put(self._fold.feed(self._masks.flush()) + self._fold.flush())
        else:
            self._put_tail(self._cut_at)
        self._masks = self._new_masks()
        if kind == b"L" and not self._at_line_start:
            self._put(b"\n")

    def _put_tail(self, cut_at: int) -> None:
        """Write the end of a step that was cut, from a line's start on: half a secret is no secret the masks know."""
        end = self._raw
        start = self._next_line(max(cut_at, end - self._tail), end)
        self._put(_TAIL.encode())
        masks, fold = self._new_masks(), Fold()
        pieces = (self._read(offset, min(PIECE, end - offset)) for offset in range(start, end, PIECE))
        data = self._marks.sub(b"", b"".join(pieces))  # marks inside it end nothing, and are no text
        self._put(fold.feed(masks.feed(data)))
        self._put(fold.feed(masks.flush()) + fold.flush())
        self._cut_at = None

    def _next_line(self, start: int, end: int) -> int:
        while start < end:
            piece = self._read(start, min(PIECE, end - start))
            if (newline := piece.find(b"\n")) >= 0:
                return start + newline + 1
            start += len(piece)
        return end

    def _end_step(self) -> None:
        self._syncs += 1
        self.words = 0
        self.checkpoint = Checkpoint(self._raw, self._log, syncs=self._syncs)
        self.syncs.append(self._log)
