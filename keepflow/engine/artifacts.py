"""Files that jobs keep: received into `KEEPFLOW_HOME/artifacts`, named by their digest, let go of in time.

Nothing an agent or a job says becomes a path here. A file is whole and synced before its row is written.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
from pathlib import Path
from types import TracebackType

from sqlalchemy import Connection

from keepflow import errors
from keepflow.core.artifacts import MOST, is_path
from keepflow.core.flows import JobKind
from keepflow.core.states import FINAL, State
from keepflow.core.text import quoted
from keepflow.engine.context import Master
from keepflow.store import artifacts, jobs, workspaces
from keepflow.store.artifacts import Artifact, NewArtifact
from keepflow.store.jobs import Attempt
from keepflow.store.writer import Tx
from keepflow.tools.files import sync_directory

LARGEST = 2 * 1024**3  #: bytes of one file
MOST_BYTES = 10 * 1024**3  #: bytes of all files of one attempt
RESERVE = 512 * 1024**2  #: bytes of the disk that no artifact takes
_LEFT = 86_400_000_000  #: microseconds
_DIGEST = re.compile(r"[0-9a-f]{64}")


class Incoming:
    """One file on its way in: `with Incoming(home) as file: file.write(…)`; `finish` gives it its name."""

    def __init__(self, home: Path) -> None:
        self._root = home / "artifacts"
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path = self._root / f"incoming-{os.urandom(8).hex()}"
        self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._hash = hashlib.sha256()
        self.size = 0

    def __enter__(self) -> Incoming:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)
        self._path.unlink(missing_ok=True)

    def write(self, data: bytes) -> None:
        """Add bytes; raises TooLarge and OutOfSpace."""
        self.size += len(data)
        if self.size > LARGEST:
            raise errors.TooLarge(f"an artifact has at most {LARGEST // 1024**3} GiB")
        if shutil.disk_usage(self._root).free < RESERVE + len(data):
            raise errors.OutOfSpace("the disk for artifacts is full; free some space under KEEPFLOW_HOME/artifacts")
        self._hash.update(data)
        try:
            while data:
                data = data[os.write(self._file, data) :]
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise errors.OutOfSpace("the disk for artifacts is full") from None
            raise

    def finish(self, digest: str) -> None:
        """Put the file where its digest says, for good; raises UsageError `bad-digest` when it is another."""
        if self._hash.hexdigest() != digest:
            raise errors.UsageError("other bytes came than were announced", code="bad-digest")
        os.fsync(self._file)
        place = place_of(self._root.parent, digest)
        place.parent.mkdir(mode=0o700, exist_ok=True)
        self._path.replace(place)
        sync_directory(place.parent)


def place_of(home: Path, digest: str) -> Path:
    """Return where the bytes with a digest lie."""
    if not _DIGEST.fullmatch(digest):
        raise errors.UsageError("no sha256 digest", code="bad-digest")
    return home / "artifacts" / digest[:2] / digest


def check_room(conn: Connection, attempt: Attempt, path: str) -> None:
    """Raise UsageError, Refused or TooLarge when an attempt may not keep another file, or not under this path."""
    if not is_path(path):
        raise errors.UsageError(f"{quoted(path[:80])} is no path of an artifact", code="bad-path")
    if attempt.state in FINAL:
        raise errors.Refused("this attempt has ended", code="stale")
    count, size = artifacts.held_by(conn, attempt.id)
    if count >= MOST or size >= MOST_BYTES:
        raise errors.TooLarge(f"an attempt keeps at most {MOST} files and {MOST_BYTES // 1024**3} GiB")


def record(tx: Tx, attempt: Attempt, file: NewArtifact, now: int) -> int:
    """Write down a file that lies in its place."""
    check_room(tx.conn, attempt, file.path)
    return artifacts.put(tx.conn, attempt.id, file, now)


def handed_on(conn: Connection, attempt: Attempt) -> list[Artifact]:
    """List what the jobs that this one needs, or that those need, have kept: of each its last attempt."""
    job = jobs.by_id(conn, attempt.job_id)
    if not job.needs:
        return []
    of_run = {one.key: one for one in jobs.of_run(conn, job.run_id)}
    todo, before = list(job.needs), set[str]()
    while todo:
        key = todo.pop()
        if key in of_run and key not in before:
            before.add(key)
            todo += of_run[key].needs
    last = {
        key: max((one.n for one in jobs.attempts_of(conn, of_run[key].id)), default=0)
        for key in before
        if of_run[key].kind == JobKind.SCRIPT and of_run[key].state == State.SUCCEEDED
    }
    found = artifacts.of_run(conn, job.run_id)
    return [one for key, n, one in found if last.get(key) == n and one.removed_at is None]


def sweep(master: Master, now: int) -> None:
    """Let go of files whose time is over; the bytes go when no other file has the same.

    What a killed master left half received goes after a day.
    """
    for left in (master.home / "artifacts").glob("incoming-*"):
        if left.stat().st_mtime * 1_000_000 < now - _LEFT:
            left.unlink(missing_ok=True)

    def forget(tx: Tx) -> list[Artifact]:
        found = artifacts.expired(tx.conn, now)
        artifacts.let_go(tx.conn, [one.id for one in found], now)
        return found

    while found := master.writer.call(forget):
        remove_bytes(master, {one.sha256 for one in found})


def remove_bytes(master: Master, digests: set[str]) -> None:
    """Remove the bytes of these digests that no kept file has any more, nor a workspace on its way.

    In the writer's thread, so that none is removed while a row of the same digest is being written.
    """

    def remove(tx: Tx) -> None:
        for digest in digests - artifacts.needed(tx.conn, digests) - workspaces.needed(tx.conn, digests):
            with contextlib.suppress(FileNotFoundError):
                place_of(master.home, digest).unlink()

    master.writer.call(remove)
