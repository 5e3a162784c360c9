"""Freeze windows: weekly and dated, in their own time zone, right across changes of the clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepflow.core.freeze import (
    DAYS,
    Weekly,
    Window,
    edge,
    frozen,
    problem,
    window_from_json,
    window_to_json,
)

WEEKEND = Window("Fri 16:00", "Mon 08:00", "Europe/Berlin", "nobody is here")
HOLIDAYS = Window("2026-12-24", "2027-01-02", "Europe/Berlin")
WEEK, CHANGE = timedelta(days=7), timedelta(hours=2)
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Shanghai", "Australia/Lord_Howe", "Pacific/Apia")


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def holds(window: Window, now: datetime) -> bool:
    return frozen([window], now, ZoneInfo) is not None


@pytest.mark.parametrize(
    ("now", "held"),
    [
        ("2026-06-05T13:59:59", False),  # Friday 15:59:59 in Berlin, summer
        ("2026-06-05T14:00:00", True),
        ("2026-06-07T12:00:00", True),
        ("2026-06-08T05:59:59", True),
        ("2026-06-08T06:00:00", False),
        ("2026-12-04T14:59:59", False),  # the same in winter is an hour later in UTC
        ("2026-12-04T15:00:00", True),
        ("2026-12-07T07:00:00", False),
    ],
)
def test_a_weekly_window_is_told_by_the_clock_of_its_zone(now: str, held: bool) -> None:
    assert holds(WEEKEND, utc(now)) is held


def test_a_window_ends_when_its_clock_says_so_even_when_the_clock_is_moved_inside() -> None:
    spring = frozen([WEEKEND], utc("2026-03-28T12:00:00"), ZoneInfo)  # the clock goes forward on the 29th
    autumn = frozen([WEEKEND], utc("2026-10-24T12:00:00"), ZoneInfo)  # and back on the 25th
    assert spring is not None
    assert autumn is not None
    assert (spring.until, autumn.until) == (utc("2026-03-30T06:00:00"), utc("2026-10-26T07:00:00"))


def test_an_edge_that_the_clock_reads_twice_makes_the_window_longer_never_shorter() -> None:
    night = Window("Sun 02:30", "Sun 03:30", "Europe/Berlin")
    first, second = utc("2026-10-25T00:30:00"), utc("2026-10-25T01:30:00")  # 02:30 in summer time, then in winter time
    assert [holds(night, first), holds(night, second - timedelta(minutes=15)), holds(night, second)] == [True] * 3
    ends = Window("Sun 01:00", "Sun 02:30", "Europe/Berlin")
    assert [holds(ends, second - timedelta(seconds=1)), holds(ends, second)] == [True, False]


def test_an_edge_that_the_clock_skips_still_makes_a_window() -> None:
    skipped = Window("Sun 02:30", "Sun 03:30", "Europe/Berlin")
    assert holds(skipped, utc("2026-03-29T01:15:00"))  # 03:15, right after the jump


@pytest.mark.parametrize(
    ("now", "held"),
    [
        ("2026-12-23T22:59:59", False),
        ("2026-12-23T23:00:00", True),  # midnight in Berlin
        ("2027-01-02T22:59:59", True),  # the last day counts to its end
        ("2027-01-02T23:00:00", False),
    ],
)
def test_a_dated_window_holds_from_the_first_day_to_the_end_of_the_last(now: str, held: bool) -> None:
    assert holds(HOLIDAYS, utc(now)) is held


def test_a_dated_window_may_name_its_hours() -> None:
    window = Window("2026-12-24 18:00", "2026-12-24 19:30", "UTC")
    times = ("2026-12-24T17:59:59", "2026-12-24T18:00:00", "2026-12-24T19:29:59", "2026-12-24T19:30:00")
    assert [holds(window, utc(now)) for now in times] == [False, True, True, False]


def test_of_two_windows_the_one_that_ends_last_is_told() -> None:
    found = frozen([HOLIDAYS, WEEKEND], utc("2026-12-26T12:00:00"), ZoneInfo)
    assert found is not None
    assert found.window is HOLIDAYS


def test_outside_of_every_window_nothing_is_frozen() -> None:
    assert frozen([], utc("2026-12-26T12:00:00"), ZoneInfo) is None
    assert frozen([WEEKEND, HOLIDAYS], utc("2026-06-10T12:00:00"), ZoneInfo) is None


@pytest.mark.parametrize(
    ("start", "end"),
    [
        ("Friday", "Mon 08:00"),
        ("fri 16:00", "Mon 08:00"),
        ("Fri 24:00", "Mon 08:00"),
        ("Fri 16:00", "Fri 16:00"),
        ("Fri 16:00", "2026-12-24"),
        ("2026-12-24", "2026-12-23"),
        ("2026-12-24 18:00", "2026-12-24 18:00"),
        ("2026-02-30", "2026-03-01"),
        ("0001-01-01", "9999-12-31"),
        ("", ""),
    ],
)
def test_what_makes_no_window_is_said_in_a_sentence(start: str, end: str) -> None:
    assert problem(start, end)


days = st.sampled_from(DAYS)
clock = st.builds("{:02d}:{:02d}".format, st.integers(0, 23), st.integers(0, 59))
weekly = st.builds("{} {}".format, days, clock)
dated = st.dates(datetime(2024, 1, 1).date(), datetime(2030, 1, 1).date()).map(str)
windows = st.one_of(
    st.builds(Window, weekly, weekly, st.sampled_from(ZONES)), st.builds(Window, dated, dated, st.sampled_from(ZONES))
).filter(lambda window: problem(window.start, window.end) is None)
moments = st.datetimes(datetime(2023, 12, 1), datetime(2030, 2, 1), timezones=st.just(UTC))


@given(windows, moments)
def test_inside_a_window_its_end_is_ahead_and_at_its_end_it_is_over(window: Window, now: datetime) -> None:
    found = frozen([window], now, ZoneInfo)
    if found is None:
        return
    assert now < found.until
    assert holds(window, found.until - timedelta(microseconds=1))
    first, last = edge(window.start), edge(window.end)
    if isinstance(first, Weekly) and isinstance(last, Weekly) and (first.offset - last.offset) % WEEK < CHANGE:
        return  # where the clock is set back, such a window may begin again before it has ended
    assert not holds(window, found.until)


@given(windows, moments)
def test_what_the_wall_clock_says_is_what_holds_away_from_changes_of_the_clock(window: Window, now: datetime) -> None:
    zone = ZoneInfo(window.tz)
    offsets = {(now + timedelta(days=day)).astimezone(zone).utcoffset() for day in range(-8, 9)}
    first, last = edge(window.start), edge(window.end)
    if len(offsets) > 1 or not isinstance(first, Weekly) or not isinstance(last, Weekly):
        return
    local = now.astimezone(zone)
    since_monday = timedelta(
        days=local.weekday(),
        hours=local.hour,
        minutes=local.minute,
        seconds=local.second,
        microseconds=local.microsecond,
    )
    start, end = first.offset, last.offset
    inside = start <= since_monday < end if start < end else since_monday >= start or since_monday < end
    assert holds(window, now) is inside


@given(windows)
def test_windows_survive_being_written_down(window: Window) -> None:
    assert window_from_json(window_to_json(window)) == window
