"""The automaton finds what a plain search finds, and with it nothing leaks in any of many generated streams (P12)."""

from __future__ import annotations

import base64
import html
import json
import random
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keepflow.core.masking import MASK, MINIMUM, Masker, Needle, OneByOne, Sought, needles_for
from keepflow.tools.needles import Automaton, sought

few_letters = st.text(alphabet="ab{ \n", min_size=1, max_size=9).map(str.encode)


@given(st.lists(few_letters, min_size=1, max_size=8, unique=True), st.lists(few_letters, max_size=20).map(b"".join))
def test_the_automaton_finds_every_occurrence_that_a_plain_search_finds(texts: list[bytes], data: bytes) -> None:
    plain, automaton = OneByOne(texts), Automaton(texts)
    assert automaton.touches(data) == plain.touches(data)
    assert sorted(automaton.every(data)) == sorted(plain.every(data))


@settings(max_examples=300)
@given(
    st.lists(st.lists(few_letters, min_size=1, max_size=3).map(tuple).map(Needle), min_size=1, max_size=5),
    st.lists(few_letters, max_size=20).map(b"".join),
    st.lists(st.integers(0, 180), max_size=6),
)
def test_both_finders_mask_alike_however_the_stream_is_cut(needles: list[Needle], text: bytes, cuts: list[int]) -> None:
    made = [in_pieces(Sought(needles, finder), text, cuts) for finder in (OneByOne, Automaton)]
    assert made[0] == made[1]
    assert made[0] == in_pieces(Sought(needles), text, [])


def test_a_json_key_whose_first_line_is_one_brace_is_masked_whole() -> None:
    key = json.dumps({"type": "service_account", "private_key_id": "0f1e2d3c4b5a69788796a5b4c3d2e1f0"}, indent=2)
    text = b'{"a": {"b": 1}}\n' * 50 + key.replace("\n", "\r\n  ").encode() + b"{"
    shown = in_pieces(sought(needles_for(key.encode())), text, list(range(0, len(text), 13)))
    assert shown == b'{"a": {"b": 1}}\n' * 50 + MASK + b"{"


def test_without_secrets_nothing_is_loaded_and_nothing_is_held() -> None:
    known = sys.modules.pop("ahocorasick_rs", None)
    try:
        masker = Masker(sought(()))
        data = b"x" * 65536
        assert masker.feed(data) is data
        assert "ahocorasick_rs" not in sys.modules
    finally:
        if known is not None:
            sys.modules["ahocorasick_rs"] = known


def in_pieces(needles: Sought, text: bytes, cuts: list[int]) -> bytes:
    masker = Masker(needles)
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    return b"".join(masker.feed(text[a:b]) for a, b in pairwise(edges)) + masker.flush()


# --- P12 in numbers -------------------------------------------------------------------------------------------------

_ALPHABET = "abcXYZ0189+/=_-.$'\"\\`<>&{}[]()%!?;:,|~ @#*é"


def _secret(rng: random.Random) -> bytes:
    def line(low: int, high: int) -> str:
        return "".join(rng.choices(_ALPHABET, k=rng.randint(low, high)))

    text = line(6, 40) if rng.random() < 0.8 else "\n".join(line(1, 60) for _ in range(rng.randint(2, 6)))
    return text.encode() if len(text.encode().strip()) >= MINIMUM else _secret(rng)


def _spelt(value: bytes, rng: random.Random) -> Iterator[tuple[str, bytes, bytes]]:
    """Yield (name, what a job prints, what of it must not be seen): more than fourteen encodings of one secret."""
    text = value.decode()
    yield "raw", value, value
    yield "hex", value.hex().encode(), value.hex().encode()
    yield "HEX", value.hex().upper().encode(), value.hex().upper().encode()
    for name, encode in (("base64", base64.b64encode), ("base64 url", base64.urlsafe_b64encode)):
        before, after = rng.randbytes(rng.randint(0, 5)), rng.randbytes(rng.randint(0, 4))
        core = encode(bytes(len(before) % 3) + value)[4:-4]
        yield name, encode(before + value + after), core
    yield "basic", base64.b64encode(b"user:" + value), base64.b64encode(bytes(2) + value)[4:-4]
    for name, spelling in (
        ("percent", quote(text)),
        ("percent all", quote(text, safe="")),
        ("percent lower", re.sub("%..", lambda code: code[0].lower(), quote(text, safe=""))),
        ("form", quote_plus(text)),
        ("json", json.dumps(text)[1:-1]),
        ("json utf-8", json.dumps(text, ensure_ascii=False)[1:-1]),
        ("xml", html.escape(text, quote=False)),
        ("xml attribute", html.escape(text)),
        ("shell", shlex.quote(text)[1:-1] if shlex.quote(text) != text else text),
        ("python", repr(text)[1:-1]),
        ("dollars", text.replace("$", "$$")),
        ("lines joined", re.sub("\n", " ", text)),
    ):
        yield name, spelling.encode(), spelling.encode()


def test_p12_nothing_leaks_in_any_generated_stream(
    request: pytest.FixtureRequest, numbers: Callable[..., None]
) -> None:
    """2,000 streams in the short form, 50,000 in the long one; each whole, in random pieces, and some byte by byte."""
    wanted = 50_000 if request.config.getoption("--long") else 2_000
    rng = random.Random(20261130)  # noqa: S311 - the same cases every time
    done, leaks, shown_bytes = 0, list[Any](), 0
    while done < wanted:
        secrets = [_secret(rng).strip() for _ in range(rng.choice([1, 2, 5, 20]))]
        needles = sought([needle for secret in secrets for needle in needles_for(secret)])
        for _ in range(40):
            secret = rng.choice(secrets)
            name, printed, hidden = rng.choice(list(_spelt(secret, rng)))
            text = rng.choice([b"", b"x", b" > ", secret[:5], hidden[: len(hidden) // 2]]) + printed
            text += rng.choice([b"", b"\n", b" <", secret[:3]]) + rng.choice([b"", rng.choice(secrets)])
            some = [rng.randint(0, len(text)) for _ in range(rng.randint(0, 6))]
            cuts = some if done % 10 else list(range(len(text)))
            whole, pieces = in_pieces(needles, text, []), in_pieces(needles, text, cuts)
            if whole != pieces or (len(hidden) >= MINIMUM and hidden in pieces.replace(MASK, b"\0")):
                leaks.append((name, secret, text, cuts, whole, pieces))
            done, shown_bytes = done + 1, shown_bytes + len(pieces)
    numbers(streams=done, leaks=len(leaks))
    assert leaks == []
    assert shown_bytes
