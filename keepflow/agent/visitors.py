"""What visitors were answered while a deployment ran: the new slot's share of failures against that of the old one."""

from __future__ import annotations

from collections import deque
from dataclasses import asdict, dataclass
from typing import Any

from keepflow.ports import Proxy, Site, Visit

_RECENT = 10.0  #: seconds; a storm at the end of a long watch must not drown in the calm before it


@dataclass(slots=True)
class Tally:
    """Requests that were given to one slot, and those of them that failed."""

    requests: int = 0
    errors: int = 0  #: answered with 5xx, or by the other slot
    caught: int = 0  #: errors that no visitor saw, because the other slot answered

    def add(self, visit: Visit) -> bool:
        """Count a visit and say whether it failed."""
        caught = visit.status < 500 and visit.by != visit.meant
        failed = visit.status >= 500 or caught
        self.requests += 1
        self.errors += failed
        self.caught += caught
        return failed

    def __str__(self) -> str:
        share = f" ({100 * self.errors / self.requests:.3g} %)" if self.requests else ""
        return f"{self.errors} of {self.requests}{share}"


@dataclass(frozen=True, slots=True)
class Limits:
    """What visitors' answers may be before the new release is put back."""

    errors: float = 0.05  #: share of failures above the share of the old slot
    enough: int = 20  #: requests below which a share means nothing


class Visitors:
    """Reads on in the proxy's record and judges; what came before this process was born is in the record, too."""

    def __init__(self, proxy: Proxy, site: Site, new: str, limits: Limits, before: Tally | None = None) -> None:
        """`before` is how the old release did when it was the new one: the minutes before a switch may be quiet."""
        self.old, self.new = Tally(), Tally()
        self._before = before or Tally()
        self._proxy, self._site, self._slot, self._limits = proxy, site, new, limits
        self._position = 0
        self._recent: deque[tuple[float, bool]] = deque()

    def trouble(self) -> str | None:
        """Read on and say, in a sentence, what is wrong with how visitors fare; None while nothing is."""
        self._read_on()
        recent = self._last_ones()
        usual = self._usual()
        # A handful of requests says little, so those that are missing count as good ones.
        allowed = usual.errors / max(usual.requests, self._limits.enough) + self._limits.errors
        for tally in (self.new, recent):
            if tally.requests >= self._limits.enough and tally.errors / tally.requests > allowed:
                return (
                    f"{tally} requests of visitors failed in the new release, and {self._usual()} in the old one; "
                    f"more than {100 * allowed:.3g} % is not allowed"
                )
        return None

    def proven(self) -> None:
        """Forget what the other slot answered until now: the proxy may have avoided a slot where something died before.

        The new release answers through the front door since then; failures that visitors saw still count.
        """
        self._read_on()
        self.new = Tally(self.new.requests - self.new.caught, self.new.errors - self.new.caught)
        self._recent.clear()

    def to_json(self) -> dict[str, Any]:
        """Read on and return the counts for the receipt."""
        self._read_on()
        return {"old": asdict(self.old), "new": asdict(self.new)}

    def _read_on(self) -> None:
        visits, self._position = self._proxy.visits(self._site, self._position)
        for visit in visits:
            if visit.meant != self._slot:
                self.old.add(visit)
            else:
                self._recent.append((visit.at, self.new.add(visit)))

    def _last_ones(self) -> Tally:
        newest = max((at for at, _ in self._recent), default=0.0)
        while self._recent and self._recent[0][0] < newest - _RECENT:
            self._recent.popleft()
        return Tally(len(self._recent), sum(failed for _, failed in self._recent))

    def _usual(self) -> Tally:
        return Tally(self.old.requests + self._before.requests, self.old.errors + self._before.errors)
