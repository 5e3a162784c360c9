"""A paused project: somebody holds it back, with a reason everybody reads. What is at work goes on, nothing new begins.

Promotes and rollbacks go on, too: they have locks of their own (`engine.locking`).
"""

from __future__ import annotations

from functools import partial

from keepflow.core.text import one_line
from keepflow.engine import dispatch
from keepflow.engine.context import Master
from keepflow.errors import Denied, Refused, UsageError
from keepflow.store import events, projects, runs
from keepflow.store.projects import Project
from keepflow.store.writer import Tx

WHY_LIMIT = 500


def pause(tx: Tx, master: Master, project: Project, why: str, by: str, now: int) -> None:
    """Let nothing new of a project begin. The holder may pause again, to say another reason.

    Raises UsageError `needs-why`, and Refused `paused` when somebody else holds it.
    """
    if not why.strip():
        raise UsageError("say why: everybody who waits will read it", code="needs-why")
    if project.paused_by is not None and project.paused_by != by:
        raise Refused(sentence(project) or "", code="paused")
    reason = one_line(why, WHY_LIMIT)
    projects.change(tx.conn, project.id, paused_by=by, paused_why=reason, paused_at=project.paused_at or now)
    _tell(tx, master, project, "project-paused", by, reason, now)


def resume(tx: Tx, master: Master, project: Project, by: str, admin: bool, now: int) -> None:
    """Let a project go on: its holder, or an admin. Raises Refused `not-paused` and Denied `not-holder`."""
    holder = project.paused_by
    if holder is None:
        raise Refused(f"{project.name} is not paused", code="not-paused")
    if holder != by and not admin:
        raise Denied(f"{holder} has paused {project.name}; {holder} or an admin lets it go on", code="not-holder")
    projects.change(tx.conn, project.id, paused_by=None, paused_why=None, paused_at=None)
    _tell(tx, master, project, "project-resumed", by, "", now)


def sentence(project: Project) -> str | None:
    """Say who paused a project and why; None when nobody did."""
    return dispatch.paused(project)


def _tell(tx: Tx, master: Master, project: Project, kind: str, by: str, why: str, now: int) -> None:
    events.add(tx, now, kind, actor=by, project_id=project.id, data={"why": why})
    live = [run.id for run in runs.every_live(tx.conn) if run.project_id == project.id]
    dispatch.advance_all(tx, master, live, now)
    tx.after_commit(partial(master.wakes.fire, "events"))
