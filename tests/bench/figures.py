"""One figure: keepflow and its floor, measured in turn, as medians with their spread."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Figure:
    """A named measurement. `floors` and `keepflows` are the single values, in `unit`, in the order they were taken."""

    bench: str
    unit: str
    floors: list[float]
    keepflows: list[float]
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> str:
        """Return the line for machines: medians, their ratio, and keepflow's spread."""
        floor, mine = statistics.median(self.floors), statistics.median(self.keepflows)
        return json.dumps(
            {
                "bench": self.bench,
                "unit": self.unit,
                "floor": round(floor, 4),
                "keepflow": round(mine, 4),
                "ratio": round(mine / floor, 4) if floor else None,
                "min": round(min(self.keepflows), 4),
                "max": round(max(self.keepflows), 4),
                "n": len(self.keepflows),
            }
        )

    def to_text(self) -> str:
        """Return the line for people."""
        floor, mine = statistics.median(self.floors), statistics.median(self.keepflows)
        ratio = f"{mine / floor:8.2f}×" if floor else "        –"
        spread = f"{min(self.keepflows):.4g}–{max(self.keepflows):.4g}"
        line = f"{self.bench:22} {floor:10.4g} {mine:10.4g} {ratio}  {self.unit:10} {spread}  n={len(self.keepflows)}"
        return "\n".join([line, *(f"{'':22} {note}" for note in self.notes)])


HEADER = f"{'bench':22} {'floor':>10} {'keepflow':>10} {'ratio':>9}  {'unit':10} keepflow's spread"


def in_turn(count: int, floor: Callable[[], float], mine: Callable[[], float]) -> tuple[list[float], list[float]]:
    """Measure both sides `count` times, one after the other, so that what the machine does meanwhile meets both."""
    floors, mines = [], []
    for _ in range(count):
        floors.append(floor())
        mines.append(mine())
    return floors, mines


def show(figure: Figure) -> None:
    """Print a figure: for people on stderr, for machines on stdout."""
    print(figure.to_text(), file=sys.stderr, flush=True)
    print(figure.to_json(), flush=True)
