"""Flows that the clock starts."""

from __future__ import annotations

from keepflow.wire.api.base import Answer, Moment


class Schedule(Answer):
    """One flow and its cron line; `missed` counts the times before `last_at` at which keepflow was not running."""

    flow: str
    cron: str
    tz: str
    ref: str
    next: list[Moment]
    last_at: Moment | None
    missed: int


class Schedules(Answer):
    """The flows of a project that the clock starts."""

    items: list[Schedule]
