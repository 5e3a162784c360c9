"""Sums over the receipts of several hosts: what all of them prove together."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Tally:
    """What the probes through all front doors saw; `p99_ms` is that of the worst host, `maintenance` is in seconds."""

    sent: int = 0
    failed: int = 0
    p99_ms: float | None = None
    maintenance: float = 0.0


def tally(receipts: Iterable[Mapping[str, Any]]) -> Tally:
    """Add receipts up as agents sent them; a figure that is none counts as not given."""
    found = list(receipts)
    probes = [receipt["probes"] for receipt in found if isinstance(receipt.get("probes"), Mapping)]
    slowest = [value for value in (_number(probe.get("p99_ms")) for probe in probes) if value is not None]
    return Tally(
        sent=sum(int(_number(probe.get("sent")) or 0) for probe in probes),
        failed=sum(int(_number(probe.get("failed")) or 0) for probe in probes),
        p99_ms=max(slowest, default=None),
        maintenance=sum(_number(receipt.get("maintenance")) or 0.0 for receipt in found),
    )


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e15:
        return None
    return float(value) if math.isfinite(value) else None
