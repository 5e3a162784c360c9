"""The sweep: a hook is a hint, the remote is the truth. What a lost hook missed becomes a delivery like any other."""

from __future__ import annotations

import structlog

from keepflow import errors
from keepflow.core.events import Event, EventKind, Parsed
from keepflow.engine import clock, hooking, intake, leaving, pulls
from keepflow.engine.context import Master
from keepflow.engine.deciding import SWEEP
from keepflow.engine.pulls import Missed
from keepflow.store import deliveries, events, heads, projects
from keepflow.store.projects import Project
from keepflow.store.writer import Tx

log = structlog.get_logger(__name__)


#: What is forgotten when it is gone from the remote.
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
    everything = master.mirrors.heads(project, pulls=True)
    now_there = {ref: sha for ref, sha in everything.items() if ref.startswith(SWEPT)}
    proposed = pulls.missed(master, project, everything)
    return master.writer.call(lambda tx: _compare(tx, master, project, now_there, proposed))


def _compare(tx: Tx, master: Master, project: Project, now_there: dict[str, str], proposed: Missed) -> list[str]:
    known, now = heads.of_project(tx.conn, project.id), clock.now()
    if not heads.has_baseline(tx.conn, project.id):
        for ref in now_there.keys() - known.keys():
            heads.put(tx.conn, project.id, ref, now_there[ref], now)
        heads.mark_baseline(tx.conn, project.id, now)
        _note(tx, project, proposed, now)
        return []
    if deliveries.next_unhandled(tx.conn, project.id) is not None:
        return []  # what is on its way says more than this picture of the remote
    leaving.gone(tx, master, project, now_there, now)
    for ref in {ref for ref in known if ref.startswith(SWEPT)} - now_there.keys():
        heads.drop(tx.conn, project.id, ref)
    missed = [ref for ref, sha in now_there.items() if known.get(ref) != sha]
    for ref in missed:
        kind = EventKind.TAG if ref.startswith("refs/tags/") else EventKind.PUSH
        _deliver(tx, master, project, Event(kind=kind, ref=ref, sha=now_there[ref], before=known.get(ref)), now)
    for event in proposed.events:
        if known.get(event.ref) != event.sha:
            _deliver(tx, master, project, event, now)
            missed.append(event.ref)
    _note(tx, project, proposed, now)
    if missed:
        hooking.suspect(tx, master, project.id, now)
    return missed


def _note(tx: Tx, project: Project, proposed: Missed, now: int) -> None:
    for ref, sha in proposed.noted.items():
        heads.put(tx.conn, project.id, ref, sha, now)
    if proposed.newest is not None:
        heads.saw_pulls(tx.conn, project.id, proposed.newest, now)


def _deliver(tx: Tx, master: Master, project: Project, event: Event, now: int) -> None:
    name, kind = f"sweep-{now}-{event.ref}", event.kind.value
    intake.record(tx, master, project, name, SWEEP, kind, {}, b"", Parsed(event), now)
    events.add(tx, now, "hook-missed", project_id=project.id, data={"ref": event.ref, "sha": event.sha})
