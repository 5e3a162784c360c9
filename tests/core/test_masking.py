"""Masking: nothing leaks however the stream is cut, and nothing else is touched."""

from __future__ import annotations

import base64
import html
import json
import re
import shlex
import subprocess
from itertools import pairwise
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from keepflow.core.masking import MASK, MINIMUM, Masker, Needle, Sought, mask, needles_for
from keepflow.errors import SecretTooShort

# --- an independent, slow statement of what masking means -----------------------------------------------------------


def expected(text: bytes, needles: tuple[Needle, ...]) -> bytes:
    """Every overlapping occurrence of every needle; overlapping ones are one mask."""
    covered = set()
    borders = set()
    for needle in needles:
        pattern = rb"\s{0,256}".join(map(re.escape, needle.parts))
        for found in re.finditer(rb"(?=(%s))" % pattern, text):
            start, end = found.start(1), found.end(1)
            covered.update(range(start, end))
            borders.update(range(start + 1, end))
    out, masked = [], False
    for at in range(len(text)):
        if at not in covered:
            out.append(text[at : at + 1])
            masked = False
        elif not masked or at not in borders:
            out.append(MASK)
            masked = True
    return b"".join(out)


def in_pieces(needles: tuple[Needle, ...], text: bytes, cuts: list[int]) -> bytes:
    masker = Masker(needles)
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    shown = [masker.feed(text[a:b]) for a, b in pairwise(edges)]
    return b"".join(shown) + masker.flush()


few_letters = st.text(alphabet="ab \n", min_size=1, max_size=9).map(str.encode)
words = few_letters.map(lambda text: text.replace(b" ", b"").replace(b"\n", b"") or b"a")
long_words = st.tuples(words, st.sampled_from([1, 1, 1, 30, 90]), words).map(lambda made: made[0] * made[1] + made[2])
few_needles = st.lists(st.lists(long_words, min_size=1, max_size=3).map(tuple).map(Needle), min_size=1, max_size=5).map(
    tuple
)


@st.composite
def needles_and_text(draw: st.DrawFn) -> tuple[tuple[Needle, ...], bytes]:
    """Needles of two letters, and a text made of their fragments: as many near misses and overlaps as possible."""
    needles = draw(few_needles)
    fragments = [part[a:b] for needle in needles for part in needle.parts for a in (0, 1) for b in (-1, None)]
    pieces = draw(st.lists(st.sampled_from([*fragments, b"a", b"b", b" ", b"\n", b"x"]), max_size=24))
    return needles, b"".join(pieces)


@settings(max_examples=400)
@given(needles_and_text(), st.lists(st.integers(0, 400), max_size=8))
@example(((Needle((b"tok-tok-9f3",)),), b"x tok-tok-tok-9f3 y"), [10])
@example(((Needle((b"aaaa",)), Needle((b"aab",))), b"aaaaaaaab"), [1, 2, 5])
def test_however_the_stream_is_cut_the_result_is_the_same(
    case: tuple[tuple[Needle, ...], bytes], cuts: list[int]
) -> None:
    needles, text = case
    wanted = expected(text, needles)
    assert in_pieces(needles, text, cuts) == wanted
    assert in_pieces(needles, text, list(range(len(text)))) == wanted
    assert mask(text, needles) == wanted


@settings(max_examples=400)
@given(needles_and_text(), st.integers(0, 400))
def test_a_new_masker_can_take_over_where_the_output_ends(case: tuple[tuple[Needle, ...], bytes], cut: int) -> None:
    needles, text = case
    first = Masker(needles)
    shown = first.feed(text[:cut])
    covered = len(text[:cut]) - first.pending
    assert covered >= 0
    assert shown + mask(text[covered:], needles) == expected(text, needles)


def test_the_required_vector_does_not_leak() -> None:
    masker = Masker(needles_for(b"tok-tok-9f3"))
    shown = masker.feed(b"x tok-tok-") + masker.feed(b"tok-9f3 y") + masker.flush()
    assert shown == b"x tok-[MASKED] y"


SECRETS = (
    b"hunter22",
    b"tok-tok-9f3",
    b"aaaaaa",
    b"p$ss'w\"rd\\n`x`",
    b"a+b/c=d?e&f g",
    b"<xml>&'\"</xml>",
    "пароль-ключ-🔑".encode(),
    b"\xff\xfe\x00binary\x80secret",
    b"line one is long\n  line two is long too\r\nshort\nlast line",
    b"-----BEGIN PRIVATE KEY-----\n"
    + b"\n".join([b"MIIEvQIBADANBgkqhkiG9w0BAQEFAASC" * 2] * 4)
    + b"\n-----END PRIVATE KEY-----\n",
)


def text_of(secret: bytes) -> str | None:
    try:
        return secret.strip().decode()
    except UnicodeDecodeError:
        return None


def encodings(secret: bytes) -> dict[str, bytes]:
    """Fourteen spellings and more, made by other code than the one under test."""
    value = secret.strip()
    found = {
        "raw": value,
        "with line end": value + b"\n",
        "base64": base64.b64encode(value),
        "base64 with line end": base64.b64encode(value + b"\n"),
        "base64 url": base64.urlsafe_b64encode(value),
        "base64 basic": base64.b64encode(b"user:" + value),
        "base64 basic, other user": base64.b64encode(b"ann@x:" + value),
        "base64 inside": base64.b64encode(b"x" + value + b"yz"),
        "base64 wrapped 76": subprocess.run(["base64"], input=value, capture_output=True, check=True).stdout,
        "base64 wrapped 64": subprocess.run(["base64", "-w64"], input=value, capture_output=True, check=True).stdout,
        "hex": value.hex().encode(),
        "HEX": value.hex().upper().encode(),
        "hex wrapped": re.sub(rb"(.{60})", rb"\1\n", value.hex().encode()),
        "percent": quote(value).encode(),
        "percent all": quote(value, safe="").encode(),
        "percent lower": re.sub("%..", lambda code: code[0].lower(), quote(value, safe="")).encode(),
        "form": quote_plus(value).encode(),
        "dollars doubled": value.replace(b"$", b"$$"),
        "python bytes": repr(value).encode(),
        "lines joined": b" ".join(value.split(b"\n")),
        "lines indented": b"\n        ".join(value.split(b"\n")),
        "lines of a terminal": b"\r\n".join(value.split(b"\n")),
    }
    if (text := text_of(secret)) is not None:
        found |= {
            "json": json.dumps({"k": text}).encode(),
            "json utf-8": json.dumps(text, ensure_ascii=False).encode(),
            "json slashes": json.dumps(text).replace("/", "\\/").encode(),
            "xml text": html.escape(text, quote=False).encode(),
            "xml attribute": html.escape(text).encode(),
            "shell quoted": shlex.quote(text).encode(),
            "python": repr(text).encode(),
        }
        if "\0" not in text:
            bash = ["bash", "-c", 'printf \'%q\n\' "$1"; set -x; : "$1"', "x", text]
            done = subprocess.run(
                bash, capture_output=True, check=True, env={"LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"}
            )
            found |= {"bash %q": done.stdout, "bash -x": done.stderr}
    return found


@pytest.mark.parametrize("secret", SECRETS, ids=range(len(SECRETS)))
def test_no_common_spelling_shows_the_secret(secret: bytes) -> None:
    needles = needles_for(secret)
    for name, spelled in encodings(secret).items():
        shown = mask(b"before " + spelled + b" after", needles)
        assert MASK in shown, name
        assert shown.startswith(b"before "), name
        assert shown.endswith(b" after"), name
        rest = shown.removeprefix(b"before ").removesuffix(b" after").replace(MASK, b"")
        if name.startswith("base64"):  # what stands beside the secret, and the one character it shares with it
            assert len(rest) <= 12, (name, rest)
        else:
            assert set(rest) <= set(b"""b'"{}k:+ $\r\n"""), (name, rest)


@pytest.mark.parametrize("secret", SECRETS, ids=range(len(SECRETS)))
def test_every_two_way_split_of_every_spelling_gives_the_same(secret: bytes) -> None:
    needles = needles_for(secret)
    for name, spelled in encodings(secret).items():
        whole = mask(spelled, needles)
        for cut in range(0, len(spelled) + 1, 1 if len(spelled) < 300 else 7):
            assert in_pieces(needles, spelled, [cut]) == whole, name


@pytest.mark.parametrize("secret", SECRETS, ids=range(len(SECRETS)))
def test_byte_by_byte_gives_the_same(secret: bytes) -> None:
    needles = needles_for(secret)
    text = b" and ".join(encodings(secret).values())[:3000]
    assert in_pieces(needles, text, list(range(len(text)))) == mask(text, needles)


@given(st.binary(min_size=6, max_size=40), st.binary(max_size=20), st.binary(max_size=20), st.integers(0, 80))
def test_any_secret_is_gone_raw_and_in_base64_and_hex(secret: bytes, before: bytes, after: bytes, cut: int) -> None:
    value = secret.strip()
    if len(value) < MINIMUM:
        return
    needles = needles_for(secret)
    for text, needle in (
        (before + value + after, value),
        (base64.b64encode(before + value + after), base64.b64encode(bytes(len(before) % 3) + value)[4:-4]),
        (before.hex().encode() + value.hex().encode() + after.hex().encode(), value.hex().encode()),
    ):
        shown = in_pieces(needles, text, [cut])
        if len(needle) >= MINIMUM and needle not in MASK:
            assert needle not in shown


@given(st.binary(max_size=200), st.integers(0, 200))
def test_without_a_secret_every_byte_passes_at_once(data: bytes, cut: int) -> None:
    masker = Masker(())
    assert masker.feed(data[:cut]) == data[:cut]
    assert masker.pending == 0
    assert masker.feed(data[cut:]) + masker.flush() == data[cut:]


def test_an_ordinary_line_is_visible_at_once() -> None:
    masker = Masker(needles_for(b"hunter22"))
    assert masker.feed(b"building layer 3 of 7\n") == b"building layer 3 of 7\n"
    assert masker.pending == 0


def test_only_a_live_beginning_is_held_back_and_an_idle_stream_never_shows_it() -> None:
    masker = Masker(needles_for(b"hunter22"))
    assert masker.feed(b"password: hunte") == b"password: "
    assert masker.pending == 5
    assert masker.feed(b"") == b""
    assert masker.feed(b"r!") == b"hunter!"
    assert masker.feed(b"hunter") == b""
    assert masker.flush() == b"hunter"
    assert masker.pending == 0


def test_each_long_line_of_a_secret_is_masked_alone_and_short_lines_only_in_company() -> None:
    needles = needles_for(b"first line\nxy\nthird line")
    assert mask(b"> first line <", needles) == b"> [MASKED] <"
    assert mask(b"> third line <", needles) == b"> [MASKED] <"
    assert mask(b"> xy <", needles) == b"> xy <"
    assert mask(b"> first line\r\n\txy   third line <", needles) == b"> [MASKED] <"


def test_whitespace_without_end_does_not_hold_the_stream() -> None:
    masker = Masker(needles_for(b"first line\nsecond line"))
    shown = masker.feed(b"first lin")
    for _ in range(100):
        shown += masker.feed(b"e" if shown == b"" and masker.pending == 9 else b" " * 100)
    assert masker.pending < 1000
    assert len(shown) > 9000


def test_an_endless_chain_of_overlapping_secrets_needs_no_memory() -> None:
    masker = Masker(needles_for(b"aaaaaa"))
    for _ in range(200):
        assert masker.feed(b"a" * 1000) == b""
    assert masker.pending == 200_000
    assert len(masker._buffer) < 10
    assert masker.feed(b"b") == b"[MASKED]b"
    assert masker.pending == 0


@pytest.mark.parametrize("secret", [b"", b"12345", b"  12345\n", b"\n\n\n\n\n\n\n", b"a b c"])
def test_a_value_too_short_to_mask_is_refused(secret: bytes) -> None:
    with pytest.raises(SecretTooShort, match="6 bytes"):
        needles_for(secret)


def test_a_value_of_six_bytes_is_masked() -> None:
    assert mask(b"abcdef", needles_for(b"abcdef")) == MASK


def test_secrets_that_overlap_are_covered_whole() -> None:
    needles = needles_for(b"abcdef") + needles_for(b"defghi")
    assert mask(b"-abcdefghi-", needles) == b"-[MASKED]-"
    assert in_pieces(needles, b"-abcdefghi-", [7]) == b"-[MASKED]-"


def test_neighbouring_secrets_stay_two_masks_however_they_are_cut() -> None:
    needles = needles_for(b"hunter22")
    for cut in range(17):
        assert in_pieces(needles, b"hunter22hunter22", [cut]) == b"[MASKED][MASKED]"


def test_double_encoding_is_documented_as_not_caught() -> None:
    """The honest limit; the documentation says so. When this test fails, the documentation is to be corrected."""
    twice = base64.b64encode(base64.b64encode(b"hunter22-and-more"))
    assert mask(twice, needles_for(b"hunter22-and-more")) == twice


@pytest.mark.parametrize("width", [64, 76])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize(
    "secret", [b"ghp_A1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6Q7r8", b"pa55wd", b"hunter2-and/more+1", b"S3cr3t" * 20]
)
def test_a_secret_in_a_longer_base64_text_is_masked_over_the_end_of_a_line(
    secret: bytes, end: bytes, width: int
) -> None:
    """`base64 <.netrc`: wherever the secret stands, and a line ends in it, a few of its characters stay at most."""
    sought = Sought(needles_for(secret))
    for before in range(2 * width):
        text = base64.b64encode(b"x" * before + b":" + secret + b" and what follows")
        broken = b"".join(text[at : at + width] + end for at in range(0, len(text), width))
        shown = mask(broken, sought).replace(end, b"")
        first = (before + 1) * 4 // 3 + 1  # characters that belong to the secret alone
        own = text[first : (before + 1 + len(secret)) * 4 // 3]
        left = [own[at : at + MINIMUM] for at in range(len(own) - MINIMUM + 1) if own[at : at + MINIMUM] in shown]
        assert not left, (before, left, shown)
