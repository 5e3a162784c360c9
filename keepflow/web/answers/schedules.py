"""Flows that the clock starts, as people and programs see them."""

from __future__ import annotations

from sqlalchemy import Connection

from keepflow.engine import timetable
from keepflow.store import schedules
from keepflow.store.projects import Project
from keepflow.wire import api

_SHOWN = 3  #: coming times


def of_project(conn: Connection, project: Project) -> list[api.Schedule]:
    """List the flows of a project that the clock starts, with their next times."""
    return [
        api.Schedule(
            flow=one.flow,
            cron=one.cron,
            tz=one.tz or "UTC",
            ref=one.ref,
            next=timetable.upcoming(project, one, _SHOWN),
            last_at=one.last_at,
            missed=one.missed,
        )
        for one in schedules.of_project(conn, project.id)
    ]
