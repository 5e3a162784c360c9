"""When cron lines fire: zones, the two nights on which clocks change, and H (R10, F18)."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import islice
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepflow.tools import cron

BERLIN = ZoneInfo("Europe/Berlin")


def micros(text: str, zone: ZoneInfo | None = None) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=zone or UTC).timestamp()) * 1_000_000


def fires(line: str, zone: str, after: int, count: int, key: str = "shop/nightly") -> list[str]:
    found = islice(cron.fires(line, zone, key, after), count)
    return [datetime.fromtimestamp(at / 1e6, ZoneInfo(zone or "UTC")).isoformat() for at in found]


def test_r10_a_line_fires_in_its_own_zone() -> None:
    assert fires("0 2 * * *", "Asia/Shanghai", micros("2026-11-30T12:00:00"), 2) == [
        "2026-12-01T02:00:00+08:00",
        "2026-12-02T02:00:00+08:00",
    ]
    assert fires("@daily", "", micros("2026-11-30T12:00:00"), 1) == ["2026-12-01T00:00:00+00:00"]


def test_f18_a_time_that_the_clock_jumps_over_fires_once_right_after_it() -> None:
    assert fires("30 2 * * *", "Europe/Berlin", micros("2026-03-28T03:00:00", BERLIN), 2) == [
        "2026-03-29T03:00:00+02:00",
        "2026-03-30T02:30:00+02:00",
    ]


def test_f18_a_time_that_comes_twice_fires_once_and_every_half_hour_goes_on() -> None:
    assert fires("30 2 * * *", "Europe/Berlin", micros("2026-10-24T12:00:00", BERLIN), 2) == [
        "2026-10-25T02:30:00+02:00",
        "2026-10-26T02:30:00+01:00",
    ]
    assert fires("*/30 * * * *", "Europe/Berlin", micros("2026-10-25T01:45:00", BERLIN), 5) == [
        "2026-10-25T02:00:00+02:00",
        "2026-10-25T02:30:00+02:00",
        "2026-10-25T02:00:00+01:00",
        "2026-10-25T02:30:00+01:00",
        "2026-10-25T03:00:00+01:00",
    ]


@given(st.integers(0, 2**51), st.sampled_from(["0 2 * * *", "*/7 * * * *", "30 2 * * 1-5", "H H * * *", "0 0 29 2 *"]))
def test_times_only_rise_and_the_next_after_one_is_the_one_after_it(after: int, line: str) -> None:
    first, second = islice(cron.fires(line, "Europe/Berlin", "k", after), 2)
    assert after < first < second
    assert next(cron.fires(line, "Europe/Berlin", "k", first)) == second


@given(st.text(max_size=20), st.sampled_from(["H * * * *", "H(10-20) 3 * * *", "H/15 * * * *", "0 H/6 * * *"]))
def test_h_is_always_the_same_for_one_flow_and_stays_in_its_range(key: str, line: str) -> None:
    found = [datetime.fromtimestamp(at / 1e6, UTC) for at in islice(cron.fires(line, "", key, 0), 8)]
    assert found == [datetime.fromtimestamp(at / 1e6, UTC) for at in islice(cron.fires(line, "", key, 0), 8)]
    if line.startswith("H("):
        assert {at.minute for at in found} <= set(range(10, 21))
        assert len({at.minute for at in found}) == 1
    if line.startswith("H/15"):
        assert {at.minute % 15 for at in found} == {found[0].minute % 15}


def test_h_spreads_flows_over_the_hour() -> None:
    minutes = {fires("H * * * *", "", 0, 1, f"project-{n}/nightly")[0] for n in range(60)}
    assert len(minutes) > 20
    assert cron.is_hashed("H 2 * * *")
    assert not cron.is_hashed("0 2 * * THU")


@pytest.mark.parametrize(
    "line",
    [
        "",
        "nightly",
        "0 2 * *",
        "0 2 * * * *",
        "61 * * * *",
        "*/0 * * * *",
        "0 0 30 2 *",
        "H/99 * * * *",
        "H(9-3) * * * *",
    ],
)
def test_a_line_that_never_fires_is_a_problem(line: str) -> None:
    assert cron.problem_of(line)


@pytest.mark.parametrize("line", [*cron.WORDS, "0 2 * * *", "*/5 8-18 * * MON-FRI", "H H(0-7) * * *", "0 0 L * *"])
def test_a_line_that_fires_is_none(line: str) -> None:
    assert cron.problem_of(line) is None
