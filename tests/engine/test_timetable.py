"""Flows that the clock starts: once per time, also after a time when nobody was there (R10, F17)."""

from __future__ import annotations

from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from keepflow.core.events import EventKind
from keepflow.core.states import State
from keepflow.engine import clock, reconcile, timetable
from keepflow.engine.timetable import Timetable
from keepflow.store import deliveries, schedules
from keepflow.store.projects import Project
from keepflow.store.schedules import Scheduled
from tests.engine.world import World

FLOWS = """version: 1
flows:
  nightly:
    on: {schedule: {cron: %s, tz: Asia/Shanghai}}
    steps: [{run: make}]
  push: {on: push, steps: [{run: make}]}
"""
HOUR = 3_600_000_000


class Night:
    """A project with a nightly flow, and a clock that the test sets."""

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch, line: str = "'0 2 * * *'") -> None:
        self.world = world
        self.project, self.repository = world.project()
        self.table = Timetable(world.master)
        monkeypatch.setattr(clock, "now", lambda: self.now)
        self.now = int(datetime.fromisoformat("2026-11-30T12:00:00+08:00").timestamp()) * 1_000_000
        self.sha = self.push(FLOWS % line)

    def push(self, text: str) -> str:
        """Push a flow file to main."""
        sha = self.world.push(self.project, self.repository, {".keepflow.yml": text}, branch="main")
        self.world.send(self.project, self.world.pushed(sha, "main"))
        return sha

    def rows(self) -> list[Scheduled]:
        """Return what is known to be due when."""
        with self.world.read() as conn:
            return schedules.of_project(conn, self.project.id)

    def tick(self, hours: float = 0) -> None:
        """Let time pass, look at the clock, and handle what that made."""
        self.now += int(hours * HOUR)
        self.table.tick()
        with self.world.read() as conn:
            waiting = [found.id for found in deliveries.page(conn, self.project.id, None, 100) if not found.handled]
        for delivery_id in reversed(waiting):
            self.world.handle(delivery_id)

    def runs(self) -> list[Any]:
        """Return the runs that the clock started."""
        return [run for run in self.world.runs() if run.event.kind == EventKind.SCHEDULE]


@pytest.fixture
def night(world: World, monkeypatch: pytest.MonkeyPatch) -> Night:
    return Night(world, monkeypatch)


def test_r10_a_cron_line_starts_a_run_in_its_time_zone_and_once(night: Night) -> None:
    night.tick()
    assert [datetime.fromtimestamp(row.next_at / 1e6).astimezone().isoformat() for row in night.rows() if row.next_at]
    night.tick(13.9)
    assert night.runs() == []
    night.tick(0.2)
    night.tick()
    night.tick(1)
    [run] = night.runs()
    assert (run.flow, run.sha, run.ref, run.state) == ("nightly", night.sha, "refs/heads/main", State.WAITING)
    assert run.why == "it was due at 2026-12-01 02:00 Asia/Shanghai"
    assert run.message == "change", "the message of the commit, as for every run"
    night.tick(24)
    assert len(night.runs()) == 2


def test_r10_what_was_missed_while_down_starts_one_run_and_is_counted(night: Night, world: World) -> None:
    night.tick()
    night.table = Timetable(world.master)  # a new process, five days later
    night.tick(5 * 24)
    [run] = night.runs()
    assert run.why == (
        "it was due at 2026-12-05 02:00 Asia/Shanghai; 4 earlier times were missed while keepflow was not running"
    )
    [row] = night.rows()
    assert (row.missed, row.next_at) == (4, row.last_at + 24 * HOUR)
    night.tick(24)
    assert night.rows()[0].missed == 0


def test_f17_two_that_look_at_once_start_it_once(night: Night, world: World) -> None:
    night.tick()
    [row] = night.rows()
    for _ in range(2):
        timetable.start(world.master, night.project, row, night.sha, row.next_at or 0)
    with world.read() as conn:
        assert (
            len([found for found in deliveries.page(conn, night.project.id, None, 9) if found.forge == "schedule"]) == 1
        )


def test_a_changed_line_has_new_times_and_one_that_is_gone_has_none(night: Night) -> None:
    night.tick()
    before = night.rows()[0]
    night.push(FLOWS % "'0 2 * * *'" + "# another comment\n")
    night.tick()
    assert night.rows() == [before], "the same line keeps its times"
    night.push(FLOWS % "'0 3 * * *'")
    night.tick()
    assert night.rows()[0].next_at == (before.next_at or 0) + HOUR
    night.push("version: 1\nflows:\n  push: {on: push, steps: [{run: make}]}\n")
    night.tick()
    assert night.rows() == []


def test_a_broken_flow_file_leaves_the_times_as_they_are(night: Night) -> None:
    night.tick()
    before = night.rows()
    night.push("flows: [")
    night.tick()
    assert night.rows() == before


def test_a_project_nobody_has_pushed_to_yet_is_read_where_its_main_branch_is(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    night = Night.__new__(Night)
    night.world, night.table, night.now = world, Timetable(world.master), 0
    night.project, night.repository = world.project()
    monkeypatch.setattr(clock, "now", lambda: night.now)
    world.push(night.project, night.repository, {".keepflow.yml": FLOWS % "'@hourly'"}, branch="master")
    night.tick()
    assert night.rows() == []
    reconcile.reconcile(world.master, night.project)
    night.tick()
    assert [(row.flow, row.ref, row.next_at) for row in night.rows()] == [("nightly", "refs/heads/master", HOUR)]


def test_a_remote_that_is_away_is_read_later(world: World) -> None:
    project, repository = world.project()
    world.push(project, repository, {".keepflow.yml": FLOWS % "'@hourly'"}, branch="main")
    reconcile.reconcile(world.master, project)
    away = repository.rename(Path(f"{repository}.away"))
    table = Timetable(world.master)
    table.tick()
    away.rename(repository)
    table.tick()
    assert len(_rows(world, project)) == 1


def _rows(world: World, project: Project) -> list[Scheduled]:
    with world.read() as conn:
        return schedules.of_project(conn, project.id)


def test_only_the_flow_whose_time_it_is_starts(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    text = FLOWS % "'@hourly'" + "  weekly: {on: {schedule: '@weekly'}, steps: [{run: make}]}\n"
    night = Night(world, monkeypatch, "'@hourly'")
    night.push(text)
    night.tick()
    night.tick(1)
    assert [run.flow for run in night.runs()] == ["nightly"]
    with world.read() as conn:
        [found] = [found for found in deliveries.page(conn, night.project.id, None, 9) if found.forge == "schedule"]
    assert found.decision is not None
    assert found.decision["not"]["weekly"] == "it was another flow's time"


def test_f17_a_thousand_ticks_start_every_time_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    night = Night(world, monkeypatch, "'@hourly'")
    for _ in range(1000):
        night.now += HOUR // 20
        night.table.tick()
    with world.read() as conn:
        found = [one.delivery for one in deliveries.page(conn, night.project.id, None, 200) if one.forge == "schedule"]
    times = sorted(int(name.rpartition("-")[2]) for name in found)
    assert len(times) == 50
    assert all(later - earlier == 3600 for earlier, later in pairwise(times))
