"""Many byte strings looked for at once: an Aho-Corasick automaton in Rust, loaded with the first secret."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from keepflow.core.masking import Needle, Sought

if TYPE_CHECKING:
    from ahocorasick_rs import BytesAhoCorasick


class Automaton:
    """A `core.masking.Finder`. What asks whether there is anything stops at nothing and is by far the most asked."""

    def __init__(self, texts: Sequence[bytes]) -> None:
        from ahocorasick_rs import BytesAhoCorasick, MatchKind  # 1.5 MB that a process without secrets has no use for

        self._texts = texts
        self._any = BytesAhoCorasick(texts, matchkind=MatchKind.LeftmostFirst)

    @cached_property
    def _all(self) -> BytesAhoCorasick:
        from ahocorasick_rs import BytesAhoCorasick

        return BytesAhoCorasick(self._texts)

    def touches(self, data: bytes) -> bool:
        """Say whether any of the texts occurs in `data`."""
        return bool(self._any.find_matches_as_indexes(data))

    def every(self, data: bytes) -> list[tuple[int, int, int]]:
        """Return (number of the text, start, end) of every occurrence, also of those that overlap."""
        return self._all.find_matches_as_indexes(data, overlapping=True)


def sought(needles: Iterable[Needle]) -> Sought:
    """Make needles ready for long streams."""
    return Sought(needles, Automaton)
