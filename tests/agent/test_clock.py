"""The master's hour on a host whose own clock is wrong: what an order's age is told by."""

from __future__ import annotations

import time

import pytest

from keepflow.agent import clock as clocks
from keepflow.agent.clock import Clock
from keepflow.agent.policy import Accepted, Refusal, check
from tests.agent.orders import MINUTE, NOW, Court

DAY = 24 * 3600


class Host:
    """A machine whose wall clock is off by some seconds, while its kernel counts on as ever."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, off: int) -> None:
        self.counted = 5_000_000  # microseconds since the kernel started
        self.off = off
        monkeypatch.setattr(clocks, "_counter", lambda: self.counted)
        monkeypatch.setattr(time, "time_ns", lambda: (self.true + self.off * 1_000_000) * 1000)

    @property
    def true(self) -> int:
        """The real time, in microseconds, which is the master's."""
        return NOW + self.counted

    def asked(self, clock: Clock, took: int = 40_000) -> None:
        """Ask the master for the time, which takes so many microseconds, and hear it."""
        asked = clock.mark()
        self.counted += took
        clock.heard(self.true - took // 2, asked)


@pytest.mark.parametrize("off", [-DAY, DAY])
def test_a_clock_that_is_a_day_off_neither_kills_a_fresh_order_nor_revives_a_dead_one(
    monkeypatch: pytest.MonkeyPatch, off: int
) -> None:
    host = Host(monkeypatch, off)
    clock = Clock()
    assert not clock.measured.is_set()
    host.asked(clock)
    assert clock.measured.is_set()
    assert abs(clock.skew - off) < 1
    court = Court(highest=0)
    court.now = host.true
    fresh, dead = court.sign(court.order()), court.sign(court.order(expires_at=host.true - MINUTE))
    early = court.sign(court.order(issued_at=host.true + 2 * MINUTE))
    court.now = clock.now()
    assert isinstance(check(fresh, court.facts), Accepted)
    for envelope, code in ((dead, "expired"), (early, "clock")):
        refusal = check(envelope, court.facts)
        assert isinstance(refusal, Refusal)
        assert refusal.code == code


def test_a_clock_that_jumps_after_it_was_measured_moves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(monkeypatch, 0)
    clock = Clock()
    host.asked(clock)
    for off in (DAY, -DAY, 0):
        host.off = off
        host.counted += 1_000_000
        assert abs(clock.now() - host.true) < 1000
        assert abs(clock.skew - off) < 1


def test_the_quickest_answer_decides_and_a_slow_link_bends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(monkeypatch, DAY)
    clock = Clock()
    host.asked(clock, took=2_000)
    asked = clock.mark()
    host.counted += 8_000_000
    clock.heard(host.true, asked)  # all of the eight seconds were on the way back to us: a bad measure
    assert abs(clock.now() - host.true) < 2_000
