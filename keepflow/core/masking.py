"""Secrets taken out of a stream of bytes, in every common spelling, across every border between two reads.

`needles_for` says what to look for, `Masker` looks. Only bytes that may still turn out to begin a secret are held back,
so an ordinary line is visible at once. Every occurrence counts, also one that overlaps another: a matcher that starts
from zero after a mismatch would let `tok-tok-tok-9f3` carry the secret `tok-tok-9f3` through.

Not caught, and not promised: double encoding, compression, reversed text, a value that the job itself splits.
"""

from __future__ import annotations

import base64
import html
import json
import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from urllib.parse import quote, quote_plus

from keepflow.errors import SecretTooShort

MASK = b"[MASKED]"
MINIMUM = 6  #: bytes
_LONGEST_GAP = 256  #: bytes of whitespace between two parts of a needle; beyond it the parts stand apart
_GAP = re.compile(rb"\s{0,%d}" % _LONGEST_GAP)
_HEAD = 3  #: bytes by which a possible beginning is recognised
_NEAR = 80  #: bytes at the end of the buffer that are looked at one by one
_LIVE, _DEAD = -1, -2


@dataclass(frozen=True, slots=True)
class Needle:
    """What to look for: one literal, or several parts between which any run of whitespace, or none, may stand."""

    parts: tuple[bytes, ...]


# --- what to look for -----------------------------------------------------------------------------------------------


def needles_for(secret: bytes) -> tuple[Needle, ...]:
    """Return every spelling of a secret that logs are known to contain; whitespace around the value is no part of it.

    Raises SecretTooShort for a value of less than 6 bytes.
    """
    value = secret.strip()
    if len(value) < MINIMUM:
        raise SecretTooShort(f"a secret must have at least {MINIMUM} bytes, not counting white space around it")
    lines = [line for line in map(bytes.strip, value.splitlines()) if line]
    literals = [*_spellings(value), *_base64(value), value.hex().encode(), value.hex().upper().encode()]
    loose = [tuple(lines)]
    for line in lines[:] if len(lines) > 1 else []:
        literals += _spellings(line)
    for text, width in _wrapped(value):
        pieces = tuple(text[at : at + width] for at in range(0, len(text), width))
        loose.append(pieces)
        literals += pieces
    long_enough = (literal for literal in literals if len(literal) >= MINIMUM)
    needles = [Needle((literal,)) for literal in long_enough] + [Needle(parts) for parts in loose]
    return tuple(dict.fromkeys(needles))


def _spellings(value: bytes) -> Iterator[bytes]:
    """Spell a value as shells, URLs, JSON, XML and programming languages write it."""
    yield value
    yield value.replace(b"$", b"$$")
    yield value.replace(b"'", rb"'\''")
    yield value.replace(b"'", b"'\"'\"'")
    yield re.sub(rb'([$`"\\])', rb"\\\1", value)
    yield re.sub(rb"([^A-Za-z0-9_@%+=:,./\x80-\xff-])", rb"\\\1", value)
    yield from _percent(value)
    try:
        text = value.decode()
    except UnicodeDecodeError:
        yield repr(value)[2:-1].encode()
        return
    for spelling in (*_json(text), *_xml(text), repr(text)[1:-1], repr(value)[2:-1]):
        yield spelling.encode(errors="surrogatepass")


def _percent(value: bytes) -> Iterator[bytes]:
    for spelling in (quote(value, safe=""), quote(value), quote(value, safe="!'()*"), quote_plus(value)):
        yield spelling.encode()
        yield re.sub("%..", lambda code: code[0].lower(), spelling).encode()


def _json(text: str) -> Iterator[str]:
    for ascii_only in (True, False):
        plain = json.dumps(text, ensure_ascii=ascii_only)[1:-1]
        yield plain
        yield plain.replace("/", "\\/")
        yield plain.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")  # Go
        yield plain.replace("'", "\\'").replace('\\"', '"')  # $'…' of bash


def _xml(text: str) -> Iterator[str]:
    yield html.escape(text, quote=False)
    for apostrophe in ("&#x27;", "&#39;", "&apos;"):
        escaped = html.escape(text).replace("&#x27;", apostrophe)
        yield escaped
        yield escaped.replace("&quot;", "&#34;")


def _base64(value: bytes) -> Iterator[bytes]:
    """Spell a value in base64 wherever it may begin in a longer text, such as `user:secret` of a Basic login.

    The first characters depend on what stands before, the last one on what stands behind: both are left out.
    """
    for offset, unstable in ((0, 0), (1, 2), (2, 3)):
        padded = bytes(offset) + value
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            text = encode(padded).rstrip(b"=")
            yield text[unstable : len(text) - bool(len(padded) % 3)]


def _wrapped(value: bytes) -> Iterator[tuple[bytes, int]]:
    """Yield the encodings that tools break into lines, with the width of a line."""
    whole = next(_base64(value))
    for text, width in ((whole, 76), (whole, 64), (value.hex().encode(), 60)):  # base64, openssl, xxd
        if len(text) > width:
            yield text, width


# --- looking --------------------------------------------------------------------------------------------------------


class Masker:
    """Replaces every needle in a stream by `[MASKED]`; overlapping ones become one mask.

    What comes out does not depend on how the stream was cut. `pending` bytes of the input are not covered by the
    output yet; a new masker may take over at exactly that place of the input.
    """

    def __init__(self, needles: Iterable[Needle]) -> None:
        parts = list(dict.fromkeys(needle.parts for needle in needles if all(needle.parts) and needle.parts))
        self._literals = sorted(only[0] for only in parts if len(only) == 1)
        self._loose = [many for many in parts if len(many) > 1]
        self._beginnings = sorted({many[0] for many in parts})
        self._heads = frozenset(text[:n] for text in self._beginnings for n in range(1, _HEAD + 1))
        self._long = [(text[:_NEAR], text) for text in self._beginnings if len(text) > _NEAR]
        self._buffer = b""
        self._lead = 0  # bytes already dropped from before the buffer that belong to a mask not yet written
        self._open = 0  # bytes at the start of the buffer that belong to that same mask

    @property
    def pending(self) -> int:
        """How many bytes of the input are held back."""
        return self._lead + len(self._buffer)

    def feed(self, data: bytes) -> bytes:
        """Take the next piece of the stream and return what can be shown now."""
        if not self._beginnings:
            return data
        buffer = self._buffer + data
        return self._show(buffer, self._earliest_live(buffer))

    def flush(self) -> bytes:
        """Return what was held back; the stream has ended."""
        return self._show(self._buffer, len(self._buffer))

    def _show(self, buffer: bytes, cut: int) -> bytes:
        """Return the masked text before `cut` and keep the rest; a mask that reaches over the cut waits for its end."""
        out, at, lead, still_open = [], 0, 0, 0
        for start, end in self._spans(buffer):
            if start >= cut:
                break
            out.append(buffer[at : max(start, at)])
            if end > cut:
                at, lead, still_open = cut, cut - start, end - cut
                break
            out.append(MASK)
            at = end
        out.append(buffer[at:cut])
        self._buffer, self._lead, self._open = buffer[cut:], lead, still_open
        return b"".join(out)

    def _spans(self, buffer: bytes) -> Iterator[tuple[int, int]]:
        """Yield every stretch to be masked, in order, overlapping ones merged; one may begin before the buffer."""
        found = [(-self._lead, self._open)] if self._open else []
        for literal in self._literals:
            at = buffer.find(literal)
            while at >= 0:
                found.append((at, at + len(literal)))
                at = buffer.find(literal, at + 1)
        for parts in self._loose:
            for at in _occurrences(buffer, parts[0]):
                end = _follow(buffer, at, parts)
                if end > at:
                    found.append((at, end))
        return _merged(found)

    def _earliest_live(self, buffer: bytes) -> int:
        """Return where the earliest needle begins that the next bytes may complete (the end, when there is none)."""
        size, heads = len(buffer), self._heads
        live = size
        for at in range(max(0, size - _NEAR), size):
            if buffer[at : at + _HEAD] in heads and self._begins_a_needle(buffer[at:]):
                live = at
                break
        for opening, text in self._long:  # further back only long ones can be live, and those show their opening
            at = buffer.find(opening, max(0, size - len(text) + 1), live + _NEAR)
            while at >= 0 and not text.startswith(buffer[at:]):
                at = buffer.find(opening, at + 1, live + _NEAR)
            live = min(live, at) if at >= 0 else live
        for parts in self._loose:
            for at in _occurrences(buffer, parts[0]):
                if at < live and _follow(buffer, at, parts) == _LIVE:
                    live = at
        return live

    def _begins_a_needle(self, text: bytes) -> bool:
        at = bisect_left(self._beginnings, text)
        at += self._beginnings[at : at + 1] == [text]
        return at < len(self._beginnings) and self._beginnings[at].startswith(text)


def mask(data: bytes, needles: Iterable[Needle]) -> bytes:
    """Mask one whole text, such as an error, a step name or a note."""
    masker = Masker(needles)
    return masker.feed(data) + masker.flush()


def _occurrences(buffer: bytes, text: bytes) -> Iterator[int]:
    at = buffer.find(text)
    while at >= 0:
        yield at
        at = buffer.find(text, at + 1)


def _follow(buffer: bytes, at: int, parts: tuple[bytes, ...]) -> int:
    """Return where the needle that begins at `at` ends; _LIVE: the buffer ends first; _DEAD: it does not fit."""
    for number, part in enumerate(parts):
        if number:
            gap = _GAP.match(buffer, at)
            at = gap.end() if gap else at
        piece = buffer[at : at + len(part)]
        if piece != part:
            return _LIVE if at + len(piece) == len(buffer) and part.startswith(piece) else _DEAD
        at += len(part)
    return at


def _merged(found: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    found.sort()
    current: tuple[int, int] | None = None
    for start, end in found:
        if current and start < current[1]:
            current = (current[0], max(current[1], end))
            continue
        if current:
            yield current
        current = (start, end)
    if current:
        yield current
