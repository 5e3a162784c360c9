"""How long an agent waits before it tries its master again."""

from __future__ import annotations

import random

_FIRST_WAIT, _LONGEST_WAIT = 0.2, 60.0  #: seconds between two tries to connect, at most
_REFUSED_WAIT = 5.0  #: seconds after which a refused agent asks again, at least half of it


class Waits:
    """How long to wait before the next try: full jitter, doubling, so that a thousand agents do not come at once."""

    def __init__(self) -> None:
        self._longest = _FIRST_WAIT
        self._asked: float | None = None

    def next(self) -> float:
        """Return the seconds to wait now."""
        if self._asked is not None:
            asked, self._asked = self._asked, None
            return asked + random.uniform(0, max(_FIRST_WAIT, asked / 2))  # noqa: S311 - spreads load, guards nothing
        longest, self._longest = self._longest, min(self._longest * 2, _LONGEST_WAIT)
        return random.uniform(0, longest)  # noqa: S311 - spreads load, guards nothing

    def asked(self, seconds: float) -> None:
        """Come back when the master said, the next time."""
        self._asked = min(max(0.0, seconds), _LONGEST_WAIT)

    def refused(self) -> None:
        """Come back later, and ever later: somebody has to do something first."""
        self._longest = min(max(self._longest * 2, _REFUSED_WAIT), _LONGEST_WAIT)
        self._asked = self._longest / 2

    def reset(self) -> None:
        """Begin with short waits again: the link worked."""
        self._longest = _FIRST_WAIT
