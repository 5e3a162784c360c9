"""When a cron line fires, in a time zone: `cronsim` knows the days on which clocks are changed, as Debian's cron does.

A time that the clock jumps over fires once, right after it; a fixed time that comes twice fires once. `H` stands for a
value that is always the same for one flow, so that a hundred flows of `H 2 * * *` do not all begin at two o'clock.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from keepflow.errors import UsageError

WORDS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_FIELD = re.compile(r"[0-9A-Za-z*/,()#-]{1,60}")
_HASHED = re.compile(r"H(?:\((\d{1,2})-(\d{1,2})\))?(?:/(\d{1,2}))?")
_RANGES = ((0, 59), (0, 23), (1, 28), (1, 12), (0, 6))
_SHAPE = "must be five fields like '0 2 * * *' (minute hour day month weekday) or @daily"


def problem_of(line: str) -> str | None:
    """Return a sentence about a line that can never fire, or None."""
    try:
        first = next(fires(line, "UTC", "", 0), None)
    except UsageError as error:
        return error.message
    return None if first is not None else "no day ever fits this"


def fires(line: str, zone: str, key: str, after: int) -> Iterator[int]:
    """Return the times after `after` at which a line fires, in UTC microseconds; `key` is what `H` goes by.

    No zone is UTC. Ends where no day fits any more. Raises UsageError for a line that is none, ZoneInfoNotFoundError.
    """
    from cronsim import CronSim, CronSimError

    plain = _plain(line, key)
    start = datetime.fromtimestamp(after / 1_000_000, ZoneInfo(zone or "UTC"))
    try:
        simulated = CronSim(plain, start)
    except CronSimError as error:
        raise UsageError(f"{_SHAPE}; {error}", code="bad-cron") from None
    return (int(found.astimezone(UTC).timestamp()) * 1_000_000 for found in simulated)


def is_hashed(line: str) -> bool:
    """Say whether a line fires at another time for each project."""
    return any(_HASHED.fullmatch(part) for part in line.split())


def _plain(line: str, key: str) -> str:
    parts = WORDS.get(line, line).split()
    if len(parts) != 5 or not all(map(_FIELD.fullmatch, parts)):
        raise UsageError(_SHAPE, code="bad-cron")
    return " ".join(_without_hash(part, number, key) for number, part in enumerate(parts))


def _without_hash(part: str, number: int, key: str) -> str:
    found = _HASHED.fullmatch(part)
    if found is None:
        return part
    low, high = (int(found[1]), int(found[2])) if found[1] else _RANGES[number]
    step = int(found[3]) if found[3] else high - low + 1
    if low > high or not 0 < step <= high - low + 1 or not _RANGES[number][0] <= low <= high <= _RANGES[number][1]:
        raise UsageError(f"{_SHAPE}; {part} is out of range", code="bad-cron")
    first = low + zlib.crc32(f"{key}:{number}".encode()) % step
    return f"{first}-{high}/{step}" if found[3] else str(first)
