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
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Protocol
from urllib.parse import quote, quote_plus

from keepflow.errors import SecretTooShort

MASK = b"[MASKED]"
MINIMUM = 6  #: bytes
_LONGEST_GAP = 256  #: bytes of whitespace between two parts of a needle; beyond it the parts stand apart
_GAP = re.compile(rb"\s{0,%d}" % _LONGEST_GAP)
_OPENING = 8  #: bytes that needles which break at other places have in common, where the first piece is longer
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
    loose += _broken(value)
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
    return (text for text, _ in _in_base64(value))


def _in_base64(value: bytes) -> Iterator[tuple[bytes, int]]:
    """Yield the spellings of `_base64`, each with how many characters of its first group of four are left out."""
    for offset, unstable in ((0, 0), (1, 2), (2, 3)):
        padded = bytes(offset) + value
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            text = encode(padded).rstrip(b"=")
            yield text[unstable : len(text) - bool(len(padded) % 3)], unstable


def _broken(value: bytes) -> Iterator[tuple[bytes, ...]]:
    """Break the base64 of a value that stands somewhere in a longer text where the lines of that text can end.

    Lines of base64 have whole groups of four characters. All begin with the same few characters where they can, for
    each text more that is looked for makes looking slower. A piece too short to be looked for is left.
    """
    for text, unstable in dict.fromkeys(_in_base64(value)):
        for width in (76, 64) if len(text) > 64 else (64,):  # base64, openssl; a short text is broken once, by both
            for at in range(4 - unstable, min(width, len(text)), 4):
                begin = 0 if at >= MINIMUM or len(text) - at < MINIMUM else at
                edges = [begin + _OPENING, *range(at, len(text), width)]
                edges = [begin, *sorted({edge for edge in edges if begin < edge < len(text)}), len(text)]
                yield tuple(text[start:end] for start, end in pairwise(edges))


def _wrapped(value: bytes) -> Iterator[tuple[bytes, int]]:
    """Yield the encodings that tools break into lines, with the width of a line."""
    whole = next(_base64(value))
    for text, width in ((whole, 76), (whole, 64), (value.hex().encode(), 60)):  # base64, openssl, xxd
        if len(text) > width:
            yield text, width


# --- looking --------------------------------------------------------------------------------------------------------


class Finder(Protocol):
    """Looks for many texts at once."""

    def touches(self, data: bytes) -> bool:
        """Say whether any of the texts occurs in `data`."""

    def every(self, data: bytes) -> Iterable[tuple[int, int, int]]:
        """Return (number of the text, start, end) of every occurrence, also of those that overlap, in any order."""


class OneByOne:
    """A finder that looks for each text in turn: for few texts, or little to look through."""

    def __init__(self, texts: Sequence[bytes]) -> None:
        self._texts = texts

    def touches(self, data: bytes) -> bool:
        """Say whether any of the texts occurs in `data`."""
        return any(text in data for text in self._texts)

    def every(self, data: bytes) -> Iterator[tuple[int, int, int]]:
        """Yield every occurrence."""
        for number, text in enumerate(self._texts):
            for at in _occurrences(data, text, 0):
                yield number, at, at + len(text)


class Sought:
    """Needles made ready to be looked for; made once, shared by any number of maskers. `finder` makes what looks."""

    def __init__(self, needles: Iterable[Needle], finder: Callable[[Sequence[bytes]], Finder] = OneByOne) -> None:
        parts = list(dict.fromkeys(needle.parts for needle in needles if all(needle.parts) and needle.parts))
        loose = [many for many in parts if len(many) > 1]
        self.loose = [_Loose(many) for many in loose]
        self.after: dict[bytes, list[_Loose]] = {}  # by their first part
        for one in self.loose:
            self.after.setdefault(one.parts[0], []).append(one)
        self.longest = {first: max(one.longest for one in group) for first, group in self.after.items()}
        self.beginnings = sorted({many[0] for many in parts})
        self.heads = frozenset(text[:n] for text in self.beginnings for n in range(1, _HEAD + 1))
        self.long = [(text[:_NEAR], text) for text in self.beginnings if len(text) > _NEAR]
        self.literals = frozenset(only[0] for only in parts if len(only) == 1)
        # A short first line, such as "{", is everywhere: where it alone would say "look", the ones after it join in.
        self._short = [one.opening for one in self.loose if len(one.parts[0]) < MINIMUM]
        self._shorts = [first for first in self.after if len(first) < MINIMUM]
        self.texts = sorted(self.literals | {many[0] for many in loose if len(many[0]) >= MINIMUM})
        self._finder = finder(self.texts) if self.texts else OneByOne(())

    def touches(self, buffer: bytes) -> bool:
        """Say whether a needle, or the whole first part of one, may be in the buffer."""
        return self._finder.touches(buffer) or any(opening.search(buffer) for opening in self._short)

    def spans(self, buffer: bytes) -> Iterator[tuple[int, int]]:
        """Yield start and end of every needle in the buffer."""
        for number, start, end in self._finder.every(buffer):
            text = self.texts[number]
            if text in self.literals:
                yield start, end
            for one in self.after.get(text, ()):
                yield from _whole(buffer, start, one)
        for first in self._shorts:
            for at in _occurrences(buffer, first, 0):
                for one in self.after[first]:
                    yield from _whole(buffer, at, one)

    def begins_with(self, text: bytes) -> bool:
        """Say whether a needle begins with this text and goes on."""
        at = bisect_left(self.beginnings, text)
        at += self.beginnings[at : at + 1] == [text]
        return at < len(self.beginnings) and self.beginnings[at].startswith(text)


class _Loose:
    """A needle of several parts. `opening` finds enough of its first parts to be worth a look."""

    def __init__(self, parts: tuple[bytes, ...]) -> None:
        self.parts = parts
        self.longest = sum(map(len, parts)) + _LONGEST_GAP * (len(parts) - 1)

    @cached_property
    def opening(self) -> re.Pattern[bytes]:
        """What its first parts look like; made when asked for, because few are and making it takes long."""
        parts = self.parts
        needed = next((n for n in range(1, len(parts)) if sum(map(len, parts[:n])) >= MINIMUM), len(parts))
        return re.compile((rb"\s{0,%d}" % _LONGEST_GAP).join(map(re.escape, parts[:needed])))


class Masker:
    """Replaces every needle in a stream by `[MASKED]`; overlapping ones become one mask.

    What comes out does not depend on how the stream was cut. `pending` bytes of the input are not covered by the
    output yet; a new masker may take over at exactly that place of the input.
    """

    def __init__(self, needles: Sought | Iterable[Needle]) -> None:
        self._sought = needles if isinstance(needles, Sought) else Sought(needles)
        self._buffer = b""
        self._lead = 0  # bytes already dropped from before the buffer that belong to a mask not yet written
        self._open = 0  # bytes at the start of the buffer that belong to that same mask

    @property
    def pending(self) -> int:
        """How many bytes of the input are held back."""
        return self._lead + len(self._buffer)

    def feed(self, data: bytes) -> bytes:
        """Take the next piece of the stream and return what can be shown now."""
        if not self._sought.beginnings:
            return data
        buffer = self._buffer + data if self._buffer else data
        touched = self._sought.touches(buffer)
        return self._show(buffer, self._earliest_live(buffer, touched=touched), touched=touched)

    def flush(self) -> bytes:
        """Return what was held back; the stream has ended."""
        return self._show(self._buffer, len(self._buffer), touched=self._sought.touches(self._buffer))

    def _show(self, buffer: bytes, cut: int, *, touched: bool) -> bytes:
        """Return the masked text before `cut` and keep the rest; a mask that reaches over the cut waits for its end."""
        if not touched and not self._open:
            self._buffer = buffer[cut:]
            return buffer[:cut]
        out, at, lead, still_open = [], 0, 0, 0
        for start, end in self._spans(buffer, touched=touched):
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

    def _spans(self, buffer: bytes, *, touched: bool) -> Iterator[tuple[int, int]]:
        """Yield every stretch to be masked, in order, overlapping ones merged; one may begin before the buffer."""
        found = [(-self._lead, self._open)] if self._open else []
        if touched:
            found += self._sought.spans(buffer)
        return _merged(found)

    def _earliest_live(self, buffer: bytes, *, touched: bool) -> int:
        """Return where the earliest needle begins that the next bytes may complete (the end, when there is none)."""
        size, sought = len(buffer), self._sought
        live = size
        for at in range(max(0, size - _NEAR), size):
            if buffer[at : at + _HEAD] in sought.heads and sought.begins_with(buffer[at:]):
                live = at
                break
        for opening, text in sought.long:  # further back only long ones can be live, and those show their opening
            at = buffer.find(opening, max(0, size - len(text) + 1), live + _NEAR)
            while at >= 0 and not text.startswith(buffer[at:]):
                at = buffer.find(opening, at + 1, live + _NEAR)
            live = min(live, at) if at >= 0 else live
        for first, group in sought.after.items():
            if touched or len(first) < MINIMUM:
                for at in _occurrences(buffer, first, max(0, size - sought.longest[first])):
                    if at < live and any(_follow(buffer, at, one.parts) == _LIVE for one in group):
                        live = at
        return live


def mask(data: bytes, needles: Sought | Iterable[Needle]) -> bytes:
    """Mask one whole text, such as an error, a step name or a note."""
    masker = Masker(needles)
    return masker.feed(data) + masker.flush()


def _occurrences(buffer: bytes, text: bytes, start: int) -> Iterator[int]:
    at = buffer.find(text, start)
    while at >= 0:
        yield at
        at = buffer.find(text, at + 1)


def _whole(buffer: bytes, at: int, one: _Loose) -> Iterator[tuple[int, int]]:
    end = _follow(buffer, at, one.parts)
    if end > at:
        yield at, end


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
