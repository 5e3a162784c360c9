"""The sweep: a hook is a hint, the remote is the truth. What a lost hook missed becomes a delivery like any other."""

from __future__ import annotations

import structlog

from keepflow import errors
from keepflow.core.events import Event, EventKind, Parsed
from keepflow.engine import clock, hooking, intake, leaving
from keepflow.engine.context import Master
from keepflow.engine.deciding import SWEEP
from keepflow.store import deliveries, events, heads, projects
from keepflow.store.projects import Project
from keepflow.store.writer import Tx

log = structlog.get_logger(__name__)


#: What is asked of a remote; heads of pull requests are known, too, but nobody can tell from a remote which are open.
SWEPT = ("refs/heads/", "refs/tags/")


def sweep(master: Master) -> None:
    """Compare every project with its remote; one that cannot be asked is skipped until the next time."""
    with master.database.read() as conn:
        found = projects.every(conn)
    for project in found:
        try:
            reconcile(master, project)
        except errors.KeepflowError as error:
            log.warning("a remote could not be compared", project=project.name, reason=error.message)


def reconcile(master: Master, project: Project) -> list[str]:
    """Compare one project with its remote and return the refs whose hooks were missed.

    The first time, what is there is only noted, not built. Raises what git raises.
    """
    now_there = master.mirrors.heads(project)
    return master.writer.call(lambda tx: _compare(tx, master, project, now_there))


def _compare(tx: Tx, master: Master, project: Project, now_there: dict[str, str]) -> list[str]:
    known, now = heads.of_project(tx.conn, project.id), clock.now()
    if not heads.has_baseline(tx.conn, project.id):
        for ref in now_there.keys() - known.keys():
            heads.put(tx.conn, project.id, ref, now_there[ref], now)
        heads.mark_baseline(tx.conn, project.id, now)
        return []
    if deliveries.next_unhandled(tx.conn, project.id) is not None:
        return []  # what is on its way says more than this picture of the remote
    leaving.gone(tx, master, project, now_there, now)
    for ref in {ref for ref in known if ref.startswith(SWEPT)} - now_there.keys():
        heads.drop(tx.conn, project.id, ref)
    missed = [ref for ref, sha in now_there.items() if known.get(ref) != sha]
    for ref in missed:
        _deliver(tx, master, project, ref, now_there[ref], known.get(ref), now)
    if missed:
        hooking.suspect(tx, master, project.id, now)
    return missed


def _deliver(tx: Tx, master: Master, project: Project, ref: str, sha: str, before: str | None, now: int) -> None:
    kind = EventKind.TAG if ref.startswith("refs/tags/") else EventKind.PUSH
    event = Event(kind=kind, ref=ref, sha=sha, before=before)
    intake.record(tx, master, project, f"sweep-{now}-{ref}", SWEEP, kind.value, {}, b"", Parsed(event), now)
    events.add(tx, now, "hook-missed", project_id=project.id, data={"ref": ref, "sha": sha})
