"""Output that was meant for a terminal, made fit for a log: progress that overwrites itself, layers, endless lines.

What comes out depends on the bytes alone, never on how they were cut into pieces. An ordinary line is given out at
once, whole or not; held back is only what may turn out to be progress.
"""

from __future__ import annotations

import re

LINE_LIMIT = 16 * 1024  #: bytes of one line, or of what overwrites it
APART = 4096  #: bytes of progress of which one state is kept, besides the first and the last
_CUT = "[… {} more bytes of this line are left out]"
_ENDS = re.compile(rb"(\r+|\n)")
#: What docker says of layers on their way (pull and push as text, BuildKit's plain progress); their ends are kept.
_WAY = rb"(?:Pulling fs layer|Waiting|Downloading|Verifying Checksum|Extracting|Preparing|Pushing|Download complete)"
_LAYER = re.compile(
    rb"[0-9a-f]{12}: "
    + _WAY
    + rb"(?: [^\r\n]{0,200})?|#\d{1,6} sha256:[0-9a-f]{64} [\d.]+[kMG]?B / [\d.]+[kMG]?B [\d.]+s"
)
_LAYERS = re.compile(rb"\n(?:[0-9a-f]{12}: [PWDVE]|#\d{1,6} sha256:)")
#: What may still become such a line.
_MAYBE = re.compile(
    rb"[0-9a-f]{1,11}|[0-9a-f]{12}(?::(?: (?:[PWDVE][^\r\n]{0,240})?)?)?"
    rb"|#(?:\d{1,6}(?: [sha256:]{0,7})?)?|#\d{1,6} sha256:[0-9a-f \d.kMGB/s]{0,120}"
)


class Fold:
    """One stream of output."""

    def __init__(self) -> None:
        self._begin_line()

    def _begin_line(self) -> None:
        self._held = b""  # not given out: it may be a layer's line, or the last state of a progress
        self._at_start = True  # nothing of the line was given out
        self._state = 0  # how many states it has had before the one that is being written
        self._room = LINE_LIMIT  # bytes that this state may still have
        self._over = 0  # bytes of it that were left out
        self._since = 0  # bytes of the line since the beginning of the last state that was given out
        self._showing = True  # whether this state is given out as it comes
        self._returns = b""  # carriage returns of which the next byte says what they were

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes and return what is sure."""
        if self._plain(data):
            return self._pass(data)
        pieces = _ENDS.split(data)
        out: list[bytes] = []
        for text, end in zip(pieces[::2], [*pieces[1::2], b""], strict=True):
            if text:
                self._text(text, out)
            if end == b"\n":
                self._newline(out)
            elif end:
                self._returns += end
        return b"".join(out)

    def flush(self) -> bytes:
        """Return what was held back: the stream ends here."""
        out: list[bytes] = []
        self._end_state(out)
        out.append(self._returns)
        self._begin_line()
        return b"".join(out)

    def _plain(self, data: bytes) -> bool:
        """Say whether nothing in here needs a second look, so that most output passes as it is."""
        if self._held or self._returns or self._state or b"\r" in data:
            return False
        if _LAYERS.search(b"\n" + data if self._at_start else data):
            return False
        return not self._over and self._fits(data)

    def _fits(self, data: bytes) -> bool:
        """Say whether no line is too long; one hop for as many lines as fit into the limit, not one for each."""
        at = data.find(b"\n", 0, self._room + 1)
        if at < 0:
            return len(data) <= self._room
        while len(data) - at - 1 > LINE_LIMIT:
            at = data.rfind(b"\n", at + 1, at + 2 + LINE_LIMIT)
            if at < 0:
                return False
        return True

    def _pass(self, data: bytes) -> bytes:
        end = data.rfind(b"\n") + 1
        if end:
            self._begin_line()
        tail = data[end:]
        if not tail:
            return data
        if self._at_start and _MAYBE.fullmatch(tail):
            self._held = tail
            return data[:end]
        self._at_start, self._room, self._since = False, self._room - len(tail), self._since + len(tail)
        return data

    def _text(self, text: bytes, out: list[bytes]) -> None:
        if self._returns:
            self._next_state(out)
        if self._at_start and not self._state:
            text, self._held = self._held + text, b""
            if _MAYBE.fullmatch(text):
                self._held = text
                return
        self._since += len(text)
        kept = text[: self._room]
        self._room -= len(kept)
        self._over += len(text) - len(kept)
        if self._showing:
            out.append(kept)
            self._at_start = False
        else:
            self._held += kept

    def _next_state(self, out: list[bytes]) -> None:
        """Begin to overwrite the line: what was held of the state before is gone for good."""
        if self._at_start and not self._state and self._held:
            self._release(out)
        if self._showing:
            self._end_state(out)
        self._showing = self._since >= APART
        if self._showing:
            self._since = 0
            out.append(self._returns)
        self._held = b"" if self._showing else self._returns
        self._returns, self._room, self._over = b"", LINE_LIMIT, 0
        self._state += 1

    def _newline(self, out: list[bytes]) -> None:
        layer = self._at_start and not self._state and _LAYER.fullmatch(self._held)
        if not layer:
            self._end_state(out)
            out.append(self._returns + b"\n")
        self._begin_line()

    def _end_state(self, out: list[bytes]) -> None:
        self._release(out)
        if self._over:
            out.append(_CUT.format(self._over).encode())

    def _release(self, out: list[bytes]) -> None:
        if self._held:
            if self._at_start and not self._state:
                self._since, self._room = self._since + len(self._held), self._room - len(self._held)
            out.append(self._held)
            self._held, self._at_start = b"", False
