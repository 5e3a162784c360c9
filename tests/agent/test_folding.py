"""Progress, layers and endless lines in a log: folded, and the same however the output was cut into pieces (R63)."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from keepflow.agent import folding
from keepflow.agent.folding import APART, LINE_LIMIT, Fold

ID = b"0123456789ab"
DIGEST = b"sha256:" + b"0f" * 32


def in_pieces(text: bytes, cuts: list[int]) -> bytes:
    fold = Fold()
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    return b"".join(fold.feed(text[a:b]) for a, b in pairwise(edges)) + fold.flush()


def expected(text: bytes) -> bytes:
    """What folding means, line by line, without a stream."""
    return b"".join(_line(line) for line in re.findall(rb"[^\n]*\n|[^\n]+", text))


def _line(line: bytes) -> bytes:
    body, end = (line[:-1], b"\n") if line.endswith(b"\n") else (line, b"")
    returns = re.search(rb"\r*\Z", body)
    body, end = body.rstrip(b"\r"), (returns[0] if returns else b"") + end
    if b"\r" not in body:
        return b"" if end.endswith(b"\n") and folding._LAYER.fullmatch(body) else _cut(body) + end
    pieces = re.split(rb"(\r+)", body)
    kept, since, shown = [_cut(pieces[0])], len(pieces[0]), True
    for number, (separator, state) in enumerate(zip(pieces[1::2], pieces[2::2], strict=True), 1):
        shown = since >= APART
        since = len(state) if shown else since + len(state)
        if shown or number == len(pieces) // 2:
            kept.append(separator + _cut(state))
    return b"".join(kept) + end


def _cut(state: bytes) -> bytes:
    over = len(state) - LINE_LIMIT
    return state if over <= 0 else state[:LINE_LIMIT] + f"[… {over} more bytes of this line are left out]".encode()


_fragments = st.sampled_from(
    [
        *(b"\r", b"\n", b"\r\n", b"a", b"ab", b"10%", b" ", b"x" * 1000, b"y" * 5000, b"\x1b[32m"),
        *(ID, ID + b": ", ID + b": Downloading", ID + b": Pull complete", ID + b": Waiting\n", b"#7 ", DIGEST),
        *(b"#7 " + DIGEST + b" 1.5MB / 3MB 0.2s", b"#7 " + DIGEST + b" 1.5MB / 3MB 0.2s\n", b" done\n"),
    ]
)


@settings(max_examples=500, deadline=None)
@given(st.lists(_fragments, max_size=30).map(b"".join), st.lists(st.integers(0, 60_000), max_size=8))
@example(b"a\r\r\nb\r", [1, 2, 3, 4])
@example(ID + b": Waiting", [3, 12, 14])
@example(b"x" * (LINE_LIMIT + 5) + b"\r\nz", [LINE_LIMIT])
def test_r63_however_the_output_is_cut_the_folded_log_is_the_same(text: bytes, cuts: list[int]) -> None:
    wanted = expected(text)
    assert in_pieces(text, []) == wanted
    assert in_pieces(text, cuts) == wanted
    if len(text) < 3000:
        assert in_pieces(text, list(range(len(text)))) == wanted


def test_r63_a_progress_bar_keeps_its_first_and_last_state_and_a_few_between() -> None:
    bar = b"".join(b"\r%3d%% %s" % (n, b"#" * 40) for n in range(1000))
    shown = in_pieces(b"fetch" + bar + b"\ndone\n", list(range(0, 50_000, 97)))
    assert shown.startswith(b"fetch")
    assert shown.endswith(b"\r999% " + b"#" * 40 + b"\ndone\n")
    assert shown.count(b"\r") <= 15


@pytest.mark.parametrize("turns", [200])
def test_r63_layers_on_their_way_do_not_flood_the_log_and_their_ends_stay(turns: int) -> None:
    way = [b"Pulling fs layer", b"Waiting", *[b"Downloading [==>   ]  1.2MB/30MB"] * turns, b"Verifying Checksum"]
    way += [b"Download complete", *[b"Extracting [==>   ]  1.2MB/30MB"] * turns, b"Pull complete"]
    text = b"".join(ID + b": " + state + b"\n" for state in way) + b"Digest: " + DIGEST + b"\n"
    text += b"#5 " + DIGEST + b" 1.0MB / 30.1MB 0.3s\n" + b"#5 " + DIGEST + b" 30.1MB / 30.1MB 1.3s done\n"
    text += ID + b": Pushed\n" + ID + b": Layer already exists\n"
    shown = in_pieces(b"Step 1/2 : FROM x\n" + text, list(range(0, len(text), 61)))
    assert shown.decode().splitlines() == [
        "Step 1/2 : FROM x",
        f"{ID.decode()}: Pull complete",
        f"Digest: {DIGEST.decode()}",
        f"#5 {DIGEST.decode()} 30.1MB / 30.1MB 1.3s done",
        f"{ID.decode()}: Pushed",
        f"{ID.decode()}: Layer already exists",
    ]


def test_an_ordinary_line_is_given_out_at_once_and_colours_stay() -> None:
    fold = Fold()
    assert fold.feed(b"\x1b[1;31mPassword: ") == b"\x1b[1;31mPassword: "
    assert fold.feed(b"\x1b[0m\n. . .") == b"\x1b[0m\n. . ."


def test_one_endless_line_is_cut_with_a_mark_and_held_nowhere() -> None:
    fold, shown = Fold(), 0
    for _ in range(1000):
        shown += len(fold.feed(b"x" * 65536))
    assert shown == LINE_LIMIT
    assert len(fold._held) == 0
    left_out = 1000 * 65536 - LINE_LIMIT
    assert fold.feed(b"\nnext\n") == f"[… {left_out} more bytes of this line are left out]\nnext\n".encode()
