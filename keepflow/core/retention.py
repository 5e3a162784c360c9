"""Which logs and artifacts of runs are let go of: beyond count, age or budget, never what is still stood on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

_DAY = 86_400_000_000  #: microseconds


@dataclass(frozen=True, slots=True)
class Rule:
    """What is kept; 0 says nothing. What is beyond any of these is let go of."""

    runs: int = 0  #: newest ended runs of each flow
    days: int = 0
    budget: int = 0  #: bytes of all logs and artifacts together; the oldest runs' go first
    forget: int = 0  #: days after which a run itself is forgotten, when nothing that is kept for good cites it


@dataclass(frozen=True, slots=True)
class Ended:
    """A run that has ended, as far as it matters here."""

    id: int
    flow: str
    ref: str
    good: bool
    ended_at: int
    number: int = 0


def stand(newest_first: Iterable[Ended], cited: Collection[int]) -> set[int]:
    """Return the runs of one project that stay whatever the rule says.

    They are `cited` by what is deployed, or the last good one of their flow and ref.
    """
    good: dict[tuple[str, str], int] = {}
    for run in newest_first:
        if run.good:
            good.setdefault((run.flow, run.ref), run.id)
    return {*cited, *good.values()}


def let_go(rule: Rule, newest_first: Collection[Ended], cited: Collection[int], now: int) -> Iterator[Ended]:
    """Yield the runs of one project whose logs and artifacts go by count or age; those that `stand` never do."""
    count, kept = Counter[str](), stand(newest_first, cited)
    days = min((days for days in (rule.days, rule.forget) if days), default=0)
    for run in newest_first:
        count[run.flow] += 1
        too_many = bool(rule.runs) and count[run.flow] > rule.runs
        too_old = bool(days) and now - run.ended_at > days * _DAY
        if (too_many or too_old) and run.id not in kept:
            yield run


def forgotten_before(rule: Rule, now: int) -> int | None:
    """Return the time before which runs must have ended to be forgotten, None when none are."""
    return now - rule.forget * _DAY if rule.forget else None
