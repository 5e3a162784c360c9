"""Which logs and artifacts of runs are let go of: beyond a count or an age, never what is still stood on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

_DAY = 86_400_000_000  #: microseconds


@dataclass(frozen=True, slots=True)
class Rule:
    """What is kept; 0 says nothing. What is beyond any of the two is let go of."""

    runs: int = 0  #: newest ended runs of each flow
    days: int = 0


@dataclass(frozen=True, slots=True)
class Ended:
    """A run that has ended, as far as it matters here."""

    id: int
    flow: str
    ref: str
    good: bool
    ended_at: int


def let_go(rule: Rule, newest_first: Iterable[Ended], cited: Collection[int], now: int) -> Iterator[Ended]:
    """Yield the runs of one project whose logs and artifacts go.

    Kept whatever the rule says: runs that are `cited` by what is deployed, and the last good one of each flow and ref.
    """
    count, good = Counter[str](), set[tuple[str, str]]()
    for run in newest_first:
        count[run.flow] += 1
        last_good = run.good and (run.flow, run.ref) not in good
        if run.good:
            good.add((run.flow, run.ref))
        too_many = bool(rule.runs) and count[run.flow] > rule.runs
        too_old = bool(rule.days) and now - run.ended_at > rule.days * _DAY
        if (too_many or too_old) and not last_good and run.id not in cited:
            yield run
