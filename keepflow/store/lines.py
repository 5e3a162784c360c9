"""Lines of runs that must not run at once: of a named group, of a flow, or of a flow on one ref.

At most one run of a line has its turn (`turn_at`); the others wait for it in the order of their numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, or_, select

from keepflow.core.flows import JobKind
from keepflow.store import runs as stored
from keepflow.store.runs import Run
from keepflow.store.tables import attempts, jobs, runs


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a project. A named group counts alone; else the flow, on one ref when one is given."""

    project_id: int
    flow: str
    ref: str | None = None
    group: str = ""

    @property
    def _members(self) -> list[ColumnElement[bool]]:
        mine = [runs.c.project_id == self.project_id]
        if self.group:
            return [*mine, runs.c.group == self.group]
        return [*mine, runs.c.flow == self.flow, *([] if self.ref is None else [runs.c.ref == self.ref])]

    def live(self) -> Select[Any]:
        """Return the query for its runs that have not ended and stand in it."""
        return select(runs).where(*self._members, runs.c.finished_at.is_(None), _IN_LINE)

    def ended(self) -> Select[Any]:
        """Return the query for its runs that have ended."""
        return select(runs).where(*self._members, runs.c.finished_at.is_not(None))


#: A run that waits for its approval stands in no line: nobody waits for it.
_IN_LINE = or_(runs.c.trust != "fork", runs.c.approved_by.is_not(None))


def before(conn: Connection, run: Run, line: Line) -> Run | None:
    """Return the last older run that has not ended."""
    return _first(conn, line.live().where(runs.c.id < run.id).order_by(runs.c.id.desc()))


def after(conn: Connection, run: Run, line: Line) -> Run | None:
    """Return the first newer run that has not ended and not had its turn."""
    return _first(conn, line.live().where(runs.c.id > run.id, runs.c.turn_at.is_(None)).order_by(runs.c.id))


def overtaken(conn: Connection, run: Run) -> list[int]:
    """List older runs of the same flow or group that came into the line late, by an approval, and wait in it."""
    of_group = [runs.c.group == run.group] if run.group else []
    query = select(runs.c.id).where(
        runs.c.project_id == run.project_id,
        or_(runs.c.flow == run.flow, *of_group),
        runs.c.finished_at.is_(None),
        runs.c.approved_by.is_not(None),
        runs.c.turn_at.is_(None),
        runs.c.id < run.id,
    )
    return list(conn.execute(query.order_by(runs.c.id)).scalars())


def in_turn(conn: Connection, run: Run, line: Line) -> Run | None:
    """Return the other run whose turn it is."""
    return _first(conn, line.live().where(runs.c.turn_at.is_not(None), runs.c.id != run.id).order_by(runs.c.id))


def stopping(conn: Connection, run: Run, line: Line) -> Run | None:
    """Return a run that has ended, but whose script an agent still has to stop."""
    query = (
        select(jobs.c.run_id)
        .join(attempts, attempts.c.job_id == jobs.c.id)
        .where(attempts.c.finished_at.is_(None), attempts.c.agent_id.is_not(None))
        .where(jobs.c.kind == JobKind.SCRIPT.value, jobs.c.run_id != run.id)
    )
    held = set(conn.execute(query).scalars())  # asked apart: the history of a flow is long, these are few
    return _first(conn, line.ended().where(runs.c.id.in_(held)).order_by(runs.c.id)) if held else None


def waiting_before(conn: Connection, run: Run, line: Line) -> list[Run]:
    """List the older runs that have not ended, the oldest first."""
    query = line.live().where(runs.c.id < run.id).order_by(runs.c.id)
    return [stored.from_row(row) for row in conn.execute(query).mappings()]


def members(conn: Connection, line: Line) -> list[Run]:
    """List the runs that have not ended, also those that wait for their approval, the oldest first."""
    query = select(runs).where(*line._members, runs.c.finished_at.is_(None)).order_by(runs.c.id)
    return [stored.from_row(row) for row in conn.execute(query).mappings()]


def _first(conn: Connection, query: Select[Any]) -> Run | None:
    row = conn.execute(query.limit(1)).mappings().first()
    return stored.from_row(row) if row else None
