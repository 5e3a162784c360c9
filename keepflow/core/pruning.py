"""What is let go of on a host: what nobody has used for too long, and beyond a budget what was not used the longest."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rule:
    """What is kept; 0 is no limit."""

    unused: float = 0  #: seconds since the last use
    budget: int = 0  #: bytes of everything together


@dataclass(frozen=True, slots=True)
class Item:
    """Something that keepflow made or fetched and could make or fetch again."""

    kind: str
    name: str
    size: int  #: bytes
    used_at: float  #: seconds, on the clock of `now`
    needed: str = ""  #: why it stays whatever the rule says


def over(rule: Rule, items: Iterable[Item], now: float) -> list[Item]:
    """Return what goes, the longest unused first; what is needed never does."""
    oldest_first = sorted(items, key=lambda item: item.used_at)
    total = sum(item.size for item in oldest_first)
    gone = []
    for item in oldest_first:
        too_old = bool(rule.unused) and now - item.used_at > rule.unused
        too_much = bool(rule.budget) and total > rule.budget
        if (too_old or too_much) and not item.needed:
            gone.append(item)
            total -= item.size
    return gone
