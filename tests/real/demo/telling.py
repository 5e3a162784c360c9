"""What the demo says: each step with its time, each claim with a mark, and one line for machines at the end."""

from __future__ import annotations

import json
import sys
import time
from typing import Any


class Teller:
    """Prints as it goes and remembers for the summary. Claims that do not hold are told and counted, not raised."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self.seconds: dict[str, float] = {}  #: how long what took
        self.counts: dict[str, int] = {}
        self.broken: list[str] = []
        self.held = 0

    def step(self, what: str, detail: str = "") -> None:
        """Say what was just done."""
        self._print(f"{time.monotonic() - self._began:6.1f} s  {what:<16}  {detail}")

    def took(self, what: str, seconds: float) -> None:
        """Remember a duration for the summary."""
        self.seconds[what] = round(seconds, 3)

    def count(self, what: str, number: int) -> None:
        """Add to a count of the summary."""
        self.counts[what] = self.counts.get(what, 0) + number

    def claim(self, sentence: str, holds: object, otherwise: object = "") -> None:
        """Say whether a claim holds; `otherwise` is what was seen instead."""
        if holds:
            self.held += 1
            self._print(f"{'':10}✓ {sentence}")
        else:
            self.broken.append(sentence)
            self._print(f"{'':10}✗ {sentence}: {str(otherwise)[:600]}")

    def text(self, text: str) -> None:
        """Say something longer."""
        self._print(text)

    def summary(self, **more: Any) -> int:
        """Print the last line, one JSON object, and return the exit code."""
        told = {
            "ok": not self.broken,
            "claims": self.held + len(self.broken),
            "broken": self.broken,
            "seconds": self.seconds,
            **self.counts,
            **more,
            "total_seconds": round(time.monotonic() - self._began, 1),
        }
        self._print(json.dumps(told))
        return 1 if self.broken else 0

    @staticmethod
    def _print(text: str) -> None:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
