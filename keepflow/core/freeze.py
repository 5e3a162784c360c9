"""Freeze windows: times in which nothing is promoted. Weekly (`Fri 16:00` to `Mon 08:00`) or dated, in a time zone.

A window is written in wall clock time and turned into instants by its zone. Where the clock is set back or forward over
an edge, the window is the longer one: it begins at the first instant that reads so and ends at the last.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Any

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_WEEKLY = re.compile(rf"(?P<day>{'|'.join(DAYS)}) (?P<hour>[01]\d|2[0-3]):(?P<minute>[0-5]\d)")
_DATED = re.compile(r"(?P<date>\d{4}-\d{2}-\d{2})(?: (?P<hour>[01]\d|2[0-3]):(?P<minute>[0-5]\d))?")
_WEEK = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Weekly:
    """A moment of every week: `day` counts from Monday = 0."""

    day: int
    at: time

    @property
    def offset(self) -> timedelta:
        """The wall clock time since Monday 00:00."""
        return timedelta(days=self.day, hours=self.at.hour, minutes=self.at.minute)


@dataclass(frozen=True, slots=True)
class Dated:
    """A moment of one day; `at` None is the whole day: its first instant as a beginning, its last as an end."""

    day: date
    at: time | None


@dataclass(frozen=True, slots=True)
class Window:
    """One freeze, as it was written. Both edges are weekly, or both are dated; `tz` is an IANA name."""

    start: str
    end: str
    tz: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class Frozen:
    """The window that holds now, and the instant it ends."""

    window: Window
    until: datetime


def edge(text: str) -> Weekly | Dated | None:
    """Read one edge of a window; None when it is none."""
    if match := _WEEKLY.fullmatch(text):
        return Weekly(DAYS.index(match["day"]), time(int(match["hour"]), int(match["minute"])))
    match = _DATED.fullmatch(text)
    if match is None:
        return None
    try:
        day = date.fromisoformat(match["date"])
    except ValueError:
        return None
    if not 2000 <= day.year <= 2200:
        return None  # a slip of the pen, and beyond what some zones can be asked
    return Dated(day, None if match["hour"] is None else time(int(match["hour"]), int(match["minute"])))


def problem(start: str, end: str) -> str | None:
    """Return a sentence about two edges that make no window, or None."""
    first, last = edge(start), edge(end)
    if first is None or last is None:
        wrong = start if first is None else end
        return f"{wrong[:40]!r} is no time; write Fri 16:00, or 2026-12-24, or 2026-12-24 18:00"
    if isinstance(first, Weekly) and isinstance(last, Weekly):
        return "a weekly window that ends when it begins never opens" if first == last else None
    if isinstance(first, Dated) and isinstance(last, Dated):
        return None if _begin(first) < _end(last) else "the window ends before it begins"
    return "from and to must both be days of the week, or both be dates"


def frozen(windows: Iterable[Window], now: datetime, zone: Callable[[str], tzinfo]) -> Frozen | None:
    """Return the window that holds `now` (an aware time) and ends last, or None when nothing is frozen.

    `zone` finds a time zone by name; what it raises passes through.
    """
    active = [Frozen(window, until) for window in windows if (until := _until(window, now, zone(window.tz)))]
    return max(active, key=lambda found: found.until, default=None)


def window_to_json(window: Window) -> dict[str, Any]:
    """Return a window as plain data."""
    return {"from": window.start, "to": window.end, "tz": window.tz, "why": window.why}


def window_from_json(data: dict[str, Any]) -> Window:
    """Read a window back from plain data; raises KeyError when it is none."""
    return Window(data["from"], data["to"], data["tz"], data["why"])


def _until(window: Window, now: datetime, zone: tzinfo) -> datetime | None:
    """Return the end of the window's occurrence that holds now, or None when none does."""
    for start, end in _occurrences(window, now.astimezone(zone).replace(tzinfo=None)):
        begins, ends = _earliest(start, zone), _latest(end, zone)
        if begins <= now < ends:
            return ends
    return None


def _occurrences(window: Window, local: datetime) -> list[tuple[datetime, datetime]]:
    """List the wall clock times between which a window may hold at this wall clock time."""
    first, last = edge(window.start), edge(window.end)
    if isinstance(first, Weekly) and isinstance(last, Weekly):
        monday = datetime.combine(local.date() - timedelta(days=local.weekday()), time())
        length = (last.offset - first.offset) % _WEEK
        starts = [monday + first.offset + _WEEK * weeks for weeks in (0, -1)]
        return [(start, start + length) for start in starts]
    if isinstance(first, Dated) and isinstance(last, Dated):
        return [(_begin(first), _end(last))]
    raise ValueError(f"no window: from {window.start!r} to {window.end!r}")


def _begin(edge: Dated) -> datetime:
    return datetime.combine(edge.day, edge.at or time())


def _end(edge: Dated) -> datetime:
    return datetime.combine(edge.day, edge.at) if edge.at else datetime.combine(edge.day + timedelta(days=1), time())


def _earliest(wall: datetime, zone: tzinfo) -> datetime:
    return min(_instants(wall, zone))


def _latest(wall: datetime, zone: tzinfo) -> datetime:
    return max(_instants(wall, zone))


def _instants(wall: datetime, zone: tzinfo) -> list[datetime]:
    return [wall.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1)]
