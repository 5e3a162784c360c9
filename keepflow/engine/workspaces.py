"""The repositories that runs have of their own while they span machines: what one job left, others fetch there.

One bare repository per run under `KEEPFLOW_HOME/workspaces`, which borrows the commits of the project's mirror and
lends it nothing. A job can add one kind of ref, `refs/attempts/<its fence>/<commit>`, and change none. Everything goes
when the run has ended: it is neither history nor part of a backup.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from sqlalchemy import Connection

from keepflow import errors
from keepflow.core.handing_on import MOST_OF_RUN
from keepflow.core.states import FINAL
from keepflow.engine import artifacts
from keepflow.engine.context import Master
from keepflow.store import jobs, workspaces
from keepflow.store.jobs import Attempt
from keepflow.store.writer import Tx
from keepflow.tools.files import write_atomic
from keepflow.tools.git import init_bare


def path_of(master: Master, run_id: int) -> Path:
    """Return where the repository of a run lies, or would."""
    return master.home / "workspaces" / f"{run_id}.git"


def ref_of(attempt: Attempt, commit: str) -> str:
    """Return the only ref that an attempt may make for a commit."""
    return f"refs/attempts/{attempt.fence}/{commit}"


def open_repository(master: Master, run_id: int, mirror: Path) -> Path:
    """Return the repository of a run, made when it is missing; harmless from several threads at once."""
    path = path_of(master, run_id)
    lent = path / "objects" / "info" / "alternates"
    if not lent.exists():
        path.parent.mkdir(mode=0o700, exist_ok=True)
        init_bare(path)
        lent.parent.mkdir(exist_ok=True)
        write_atomic(lent, f"{mirror.absolute() / 'objects'}\n".encode(), 0o600)
    return path


def has(master: Master, run_id: int, attempt: Attempt, commit: str) -> bool:
    """Say whether a commit that an attempt hands on is in the repository of its run, whole."""
    try:
        return (path_of(master, run_id) / ref_of(attempt, commit)).read_text().strip() == commit
    except FileNotFoundError:
        return False


def check_room(master: Master, conn: Connection, run_id: int, attempt: Attempt, size: int) -> None:
    """Raise Refused, TooLarge or OutOfSpace when an attempt may not hand on so many bytes more."""
    if attempt.state in FINAL:
        raise errors.Refused("this attempt has ended", code="stale")
    if workspaces.held_by(conn, run_id) + size > MOST_OF_RUN:
        raise errors.TooLarge(f"the jobs of a run hand on at most {MOST_OF_RUN // 1024**3} GiB to other machines")
    if shutil.disk_usage(master.home).free < artifacts.RESERVE + size:
        raise errors.OutOfSpace("the disk of the master is full; free some space under KEEPFLOW_HOME")


def record(tx: Tx, master: Master, run_id: int, fence: int, commit: str, size: int, now: int) -> None:
    """Write down that an attempt has handed on a commit that is in the repository; raises Refused `stale`."""
    attempt = _living(tx.conn, fence)
    check_room(master, tx.conn, run_id, attempt, size)
    workspaces.put(tx.conn, run_id, attempt.id, commit, size, now)


def record_file(tx: Tx, master: Master, run_id: int, fence: int, sha256: str, size: int, now: int) -> None:
    """Write down a large file whose bytes are in their place; raises Refused `stale`."""
    check_room(master, tx.conn, run_id, _living(tx.conn, fence), size)
    workspaces.put_file(tx.conn, run_id, sha256, size, now)


def _living(conn: Connection, fence: int) -> Attempt:
    attempt = jobs.attempt_by_fence(conn, fence)
    if attempt is None or attempt.state in FINAL:
        raise errors.Refused("this attempt has ended", code="stale")
    return attempt


def sweep(master: Master) -> None:
    """Remove what runs handed on that have ended, or that are not known (any more)."""
    root = master.home / "workspaces"
    lying = {int(path.stem): path for path in root.glob("*.git") if path.stem.isdigit()}
    with master.database.read() as conn:
        gone = lying.keys() - workspaces.going_on(conn, lying.keys())
        over = workspaces.ended(conn) | gone
    if not over:
        return
    digests = master.writer.call(lambda tx: workspaces.forget(tx.conn, over))
    artifacts.remove_bytes(master, digests)
    for run_id in gone:
        shutil.rmtree(lying[run_id], ignore_errors=True)
