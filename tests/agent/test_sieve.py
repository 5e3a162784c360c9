"""What comes out of the sieve depends on the bytes alone, never on pieces, restarts or cuts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from keepflow.agent.sieve import Checkpoint, Sieve
from keepflow.core.masking import Masker, needles_for

NONCE = "0123456789abcdef"
LINE, SYNC, WORD = (f"\x1e{NONCE}{kind}\n".encode() for kind in "LSW")
AGAIN = f"\x1e{NONCE}A0123abcd\n".encode()
SECRET = b"tok-tok-9f3"
NEEDLES = needles_for(SECRET)
LIMIT, TAIL = 200, 60
BEGINNING = Checkpoint()

#: Raw output of a job: text, secrets, their beginnings, marks and what only looks like one.
PIECES = st.sampled_from(
    [
        b"a line\n",
        b"x" * 37,
        b"\n",
        SECRET,
        SECRET[:5],
        b"tok-",
        b"\x1e",
        b"\x1e" + NONCE[:9].encode(),
        LINE,
        SYNC,
        SYNC,
        WORD,
        AGAIN,
    ]
)
STREAMS = st.lists(PIECES, max_size=40).map(b"".join)


class Tape:
    """A raw file that grows, and the log that comes out; `saved` is what a crash leaves."""

    def __init__(self, raw: bytes) -> None:
        self.raw, self.visible = raw, 0
        self.log = bytearray()
        self.skip = 0

    def read(self, offset: int, size: int) -> bytes:
        return self.raw[: self.visible][offset : offset + size]

    def emit(self, data: bytes) -> None:
        skipped = min(self.skip, len(data))
        self.skip -= skipped
        self.log += data[skipped:]

    def sieve(self, checkpoint: Checkpoint = BEGINNING, limit: int = LIMIT) -> Sieve:
        self.skip = len(self.log) - checkpoint.log
        before = bytes(self.log[: checkpoint.log])
        return Sieve(
            self.read,
            self.emit,
            lambda: Masker(NEEDLES),
            NONCE,
            checkpoint,
            at_line_start=not before or before.endswith(b"\n"),
            limit=limit,
            tail=TAIL,
        )


def whole(raw: bytes, limit: int = LIMIT) -> tuple[bytes, list[int]]:
    """Return the log of a stream that was there at once, and where its steps ended."""
    tape = Tape(raw)
    tape.visible = len(raw)
    sieve = tape.sieve(limit=limit)
    sieve.finish()
    return bytes(tape.log), sieve.syncs


@given(STREAMS, st.lists(st.integers(0, 400), max_size=30))
def test_pieces_change_nothing(raw: bytes, cuts: list[int]) -> None:
    tape = Tape(raw)
    sieve = tape.sieve()
    for cut in sorted(cuts):
        tape.visible = min(cut, len(raw))
        while sieve.take():
            pass
    tape.visible = len(raw)
    sieve.finish()
    assert (bytes(tape.log), sieve.syncs) == whole(raw)


@given(STREAMS, st.lists(st.integers(0, 400), min_size=1, max_size=8), st.data())
def test_a_restart_at_any_point_gives_the_same_log(raw: bytes, cuts: list[int], data: st.DataObject) -> None:
    tape = Tape(raw)
    checkpoint = Checkpoint()
    for cut in sorted(cuts):
        sieve = tape.sieve(checkpoint)
        tape.visible = min(cut, len(raw))
        while sieve.take():
            pass
        # A crash may come before the newest checkpoint was written, and after only a part of the log was.
        if data.draw(st.booleans()):
            checkpoint = sieve.checkpoint
        lost = data.draw(st.integers(0, len(tape.log) - checkpoint.log)) if len(tape.log) > checkpoint.log else 0
        del tape.log[len(tape.log) - lost :]
    tape.visible = len(raw)
    tape.sieve(checkpoint).finish()
    assert bytes(tape.log) == whole(raw)[0]


@given(STREAMS)
def test_no_secret_and_no_mark_comes_through(raw: bytes) -> None:
    log, _ = whole(raw)
    assert SECRET not in log
    assert NONCE.encode() not in log


@given(STREAMS, st.integers(0, 400))
def test_r54_what_was_said_is_counted_the_same_after_a_restart(raw: bytes, cut: int) -> None:
    tape = Tape(raw)
    sieve = tape.sieve(limit=10_000)
    tape.visible = min(cut, len(raw))
    while sieve.take():
        pass
    again = tape.sieve(sieve.checkpoint, limit=10_000)
    tape.visible = len(raw)
    while again.take():
        pass
    assert again.checkpoint.syncs == raw.count(SYNC)
    assert again.words == raw.rpartition(SYNC)[2].count(WORD)
    assert again.again == (b"0123abcd" if AGAIN in raw[sieve.checkpoint.raw :] else b"")


@given(STREAMS)
def test_what_was_spent_is_never_read_again(raw: bytes) -> None:
    tape = Tape(raw)
    sieve = tape.sieve()

    def read(offset: int, size: int) -> bytes:
        assert offset >= sieve.spent
        return tape.read(offset, size)

    sieve._read = read
    for visible in range(0, len(raw) + 1, 7):
        tape.visible = visible
        while sieve.take():
            pass
    tape.visible = len(raw)
    sieve.finish()


def test_a_line_mark_begins_a_fresh_line_only_where_none_is() -> None:
    assert whole(b"ended" + LINE + b"next" + SYNC)[0] == b"ended\nnext\n"
    assert whole(b"ended\n" + LINE + b"next\n" + SYNC)[0] == b"ended\nnext\n"
    assert whole(LINE + b"first\n" + SYNC)[0] == b"first\n"


def test_steps_end_where_their_marks_are() -> None:
    log, syncs = whole(b"one\n" + SYNC + b"two\n" + SYNC)
    assert [log[: syncs[0]], log[syncs[0] : syncs[1]]] == [b"one\n", b"two\n"]


def test_a_step_over_the_limit_is_cut_and_shows_its_last_lines() -> None:
    lines = b"".join(b"line %04d\n" % number for number in range(100))
    log, _ = whole(lines + LINE + b"step done\n" + SYNC + b"next step\n" + SYNC)
    text = log.decode()
    assert text.startswith("line 0000\n")
    assert "cut here, after 200 bytes" in text
    assert "line 0050" not in text
    assert "line 0099\nstep done\nnext step\n" in text


def test_a_secret_across_the_cut_shows_no_half_on_either_side() -> None:
    for shift in range(len(SECRET) + 2):
        raw = b"y" * (LIMIT - shift) + SECRET + b" rest of the line\nlast line\n" + SYNC
        log, _ = whole(raw)
        assert b"tok-9f3" not in log
        assert b"tok-tok" not in log
        assert log.endswith(b"last line\n")


def test_a_cut_step_without_any_line_end_shows_no_tail() -> None:
    log, _ = whole(b"z" * 1000 + SYNC)
    assert log.count(b"z") == LIMIT


def test_a_forged_mark_is_only_text() -> None:
    forged = b"\x1e" + b"f" * len(NONCE) + b"S\n"
    log, syncs = whole(forged + SYNC)
    assert log == forged
    assert len(syncs) == 2  # the mark, and the end
