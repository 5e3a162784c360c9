"""Flows that the clock starts: read from the main branch, started once when their time comes.

What is due becomes a delivery like any other, so it stands in the same list with its decision, and is handled by the
same intake. Times that passed while keepflow was down start the flow once, for the last of them, and are counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from itertools import islice, takewhile
from zoneinfo import ZoneInfo

import structlog
from sqlalchemy import Connection

from keepflow import errors
from keepflow.config.flow_file import load_flow
from keepflow.core.events import Event, EventKind, Parsed
from keepflow.core.flows import Flow, FlowFile
from keepflow.engine import clock, intake
from keepflow.engine.context import Master
from keepflow.engine.mirrors import MAIN_BRANCHES
from keepflow.store import heads, projects, schedules
from keepflow.store.projects import Project
from keepflow.store.schedules import Scheduled
from keepflow.store.writer import Tx
from keepflow.tools import cron

log = structlog.get_logger(__name__)

#: `forge` of deliveries that the clock made.
CLOCK = "schedule"
_MOST_COUNTED = 10_000  #: missed times that are counted one by one


class Timetable:
    """Knows when the flows of every project are due; `tick` is called every few seconds by one thread."""

    def __init__(self, master: Master) -> None:
        self._master = master
        self._read: dict[int, tuple[str, str]] = {}  #: by project: main branch and commit that the rows are of

    def tick(self) -> None:
        """Read what is new on main branches, and start what is due."""
        with self._master.database.read() as conn:
            every = [(found, _main(conn, found)) for found in projects.every(conn)]
        for project, main in every:
            if main is not None and self._read.get(project.id) != main:
                self._refresh(project, *main)
        now = clock.now()
        known = {project.id: (project, main[1]) for project, main in every if main is not None}
        with self._master.database.read() as conn:
            due = schedules.due(conn, now)
        for one in due:
            if one.project_id in known:
                project, sha = known[one.project_id]
                start(self._master, project, one, sha, now)

    def _refresh(self, project: Project, ref: str, sha: str) -> None:
        try:
            if not self._master.mirrors.has(project, sha):
                self._master.mirrors.fetch(project, ref)
            found = self._master.mirrors.read(project, sha).flow_file
            flow_file = load_flow(found[1], self._master.kinds, found[0]) if found else FlowFile({})
        except errors.ConfigError:
            self._read[project.id] = (ref, sha)  # its push is a failed run that says so; what was there goes on
            return
        except errors.KeepflowError as error:
            log.warning("a timetable cannot be read now", project=project.name, reason=error.message)
            return
        now = clock.now()
        self._master.writer.call(lambda tx: _replace(tx, project, ref, flow_file, now))
        self._read[project.id] = (ref, sha)


def start(master: Master, project: Project, one: Scheduled, sha: str, now: int) -> None:
    """Start a flow that is due, once for the last of the times that have passed."""
    if one.next_at is None:
        return
    later = list(takewhile(lambda at: at <= now, islice(_fires(project, one, one.next_at), _MOST_COUNTED)))
    at = later[-1] if later else one.next_at
    following = next(_fires(project, one, max(at, now if len(later) == _MOST_COUNTED else at)), None)
    note = _note(one, at, len(later))
    event = Event(EventKind.SCHEDULE, one.ref, sha, flow=one.flow, note=note)

    def write(tx: Tx) -> None:
        if schedules.fired(tx.conn, one, at, len(later), following):
            delivery = f"schedule-{one.flow}-{at // 1_000_000}"
            intake.record(tx, master, project, delivery, CLOCK, EventKind.SCHEDULE, {}, b"", Parsed(event), now)

    master.writer.call(write)


def _replace(tx: Tx, project: Project, ref: str, flow_file: FlowFile, now: int) -> None:
    """Make the rows what the flow file says; a line that has not changed keeps its times."""
    before = {(row.flow, row.cron, row.tz): row for row in schedules.of_project(tx.conn, project.id)}
    wanted = [
        replace(row, ref=ref) if row else _new(project, flow, ref, now)
        for flow in flow_file.flows.values()
        if flow.on.cron
        for row in [before.get((flow.name, flow.on.cron, flow.on.tz))]
    ]
    schedules.replace(tx.conn, project.id, wanted)


def _new(project: Project, flow: Flow, ref: str, now: int) -> Scheduled:
    row = Scheduled(project.id, flow.name, flow.on.cron, flow.on.tz, ref, None)
    return replace(row, next_at=next(_fires(project, row, now), None))


def upcoming(project: Project, one: Scheduled, count: int) -> list[int]:
    """List the next times of a flow that the clock starts."""
    if one.next_at is None:
        return []
    return [one.next_at, *islice(_fires(project, one, one.next_at), count - 1)]


def _fires(project: Project, one: Scheduled, after: int) -> Iterator[int]:
    return cron.fires(one.cron, one.tz, f"{project.name}/{one.flow}", after)


def _note(one: Scheduled, at: int, missed: int) -> str:
    zone = one.tz or "UTC"
    when = datetime.fromtimestamp(at / 1_000_000, UTC).astimezone(ZoneInfo(zone))
    times = "1 earlier time was" if missed == 1 else f"{missed} earlier times were"
    more = f"; {times} missed while keepflow was not running" if missed else ""
    return f"it was due at {when:%Y-%m-%d %H:%M} {zone}{more}"


def _main(conn: Connection, project: Project) -> tuple[str, str] | None:
    found = ((ref, heads.get(conn, project.id, ref)) for ref in MAIN_BRANCHES)
    return next(((ref, sha) for ref, sha in found if sha is not None), None)
