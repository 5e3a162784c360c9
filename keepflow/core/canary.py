"""Canaries: a new release gets a few percent of the visitors, then more, before it gets all of them."""

from __future__ import annotations

import re
from collections.abc import Sequence

#: Shares of visitors, in percent, that the proxy's template knows.
PERCENTS = (1, 5, 10, 25, 50)
SHORTEST, LONGEST = 1, 24 * 3600  #: seconds that a step may take
_STEP = re.compile(r"(\d{1,2}) % of visitors")


def problem(steps: Sequence[int], hold: int) -> str | None:
    """Say what is wrong with the steps of a canary and the seconds each is held; None when nothing is."""
    known = ", ".join(map(str, PERCENTS))
    if any(step not in PERCENTS for step in steps):
        return f"a canary's steps are among {known} percent"
    if list(steps) != sorted(set(steps)):
        return "a canary's steps rise, and each is there once"
    if steps and not SHORTEST <= hold <= LONGEST:
        return f"a step of a canary is held between {SHORTEST} second and {LONGEST // 3600} hours"
    return None


def sentence(percent: int, rest: str) -> str:
    """Say at which step a canary is."""
    return f"{percent} % of visitors {rest}"


def step_of(told: str) -> int | None:
    """Return the step that a `sentence` tells, or None for any other text."""
    match = _STEP.match(told)
    return int(match[1]) if match else None
