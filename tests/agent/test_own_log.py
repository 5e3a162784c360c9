"""The agent's own log: what is found at every look is said now and then, not at every look."""

from __future__ import annotations

import pytest

from keepflow.agent.logs import Log, Reminder


def test_what_is_wrong_all_the_time_fills_no_log(caplog: pytest.LogCaptureFixture) -> None:
    """A build machine without Docker was told of every two seconds: 43,000 lines a day."""
    now = 0.0
    reminder = Reminder(Log("keepflow.test"), every=600.0, clock=lambda: now)
    for _ in range(1000):
        reminder.warning("deployments cannot be taken up yet", reason="no engine")
        now += 2.0
    assert len(caplog.records) == 4  # at 0, 600, 1200 and 1800 seconds
    reminder.warning("deployments cannot be taken up yet", reason="another")
    assert len(caplog.records) == 5, "what is new is said at once"


def test_what_was_said_is_not_remembered_for_ever(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    reminder = Reminder(Log("keepflow.test"), every=10.0, clock=lambda: now)
    for number in range(1000):
        reminder.warning("trouble", number=number)
        now += 1.0
    assert len(caplog.records) == 1000
    assert len(reminder._said) <= 10
