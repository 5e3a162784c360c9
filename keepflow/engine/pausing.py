"""A paused project: somebody holds it back, with a reason everybody reads. What is at work goes on, nothing new begins.

Promotes and rollbacks go on, too: they have locks of their own (`engine.locking`).
"""

from __future__ import annotations

from functools import partial

from keepflow.engine import dispatch
from keepflow.engine.context import Master
from keepflow.store import events, projects, runs
from keepflow.store.projects import Project
from keepflow.store.writer import Tx


def pause(tx: Tx, master: Master, project: Project, why: str, by: str, now: int) -> None:
    """Let nothing new of a project begin. The holder may pause again, to say another reason.

    Raises UsageError `needs-why`, and Refused `paused` when somebody else holds it.
    """
    reason = dispatch.hold_of(project).take(by, why)
    projects.change(tx.conn, project.id, paused_by=by, paused_why=reason, paused_at=project.paused_at or now)
    _tell(tx, master, project, "project-paused", by, reason, now)


def resume(tx: Tx, master: Master, project: Project, by: str, admin: bool, now: int) -> None:
    """Let a project go on: its holder, or an admin. Raises Refused `not-paused` and Denied `not-holder`."""
    dispatch.hold_of(project).let_go(by, admin)
    projects.change(tx.conn, project.id, paused_by=None, paused_why=None, paused_at=None)
    _tell(tx, master, project, "project-resumed", by, "", now)


def _tell(tx: Tx, master: Master, project: Project, kind: str, by: str, why: str, now: int) -> None:
    events.add(tx, now, kind, actor=by, project_id=project.id, data={"why": why})
    live = [run.id for run in runs.every_live(tx.conn) if run.project_id == project.id]
    dispatch.advance_all(tx, master, live, now)
    tx.after_commit(partial(master.wakes.fire, "events"))
