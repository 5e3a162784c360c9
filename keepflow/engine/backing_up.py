"""Backups: the database, logs, artifacts and sealed keys of a master as one stream, taken while everything goes on.

What the stream holds is listed at its end, with sizes and digests: a backup without its list is not whole. The key that
opens the sealed parts is never in it.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import sqlite3
import tarfile
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from keepflow.engine import clock
from keepflow.engine.context import Master
from keepflow.errors import UsageError

#: Names inside a backup. The list comes last.
DATABASE, ORDER_KEY, LOGS, FILES, LIST = "keepflow.db", "order.key.sealed", "logs", "files", "backup.json"
ARTIFACTS = "artifacts"
#: What grows with runs: whole directories of files.
KEPT = (LOGS, ARTIFACTS)
FORMAT = 1
#: What people wrote beside the database; copied as it is.
WRITTEN = ("keepflow.yml", "local-agent.yml")
_PIECE = 64 * 1024


def stream(master: Master) -> Iterator[bytes]:
    """Return a whole backup piece by piece; raises UsageError `not-sqlite` before the first one."""
    if not master.database.is_sqlite:
        raise UsageError(
            "this master keeps its state in PostgreSQL: back that up with pg_dump, and copy the home beside it",
            code="not-sqlite",
        )
    return _pieces(master)


def _pieces(master: Master) -> Iterator[bytes]:
    """Let a thread write into one end of a pipe, so that a slow reader slows the writing and holds no memory."""
    reading, writing = os.pipe()
    failed: list[BaseException] = []
    writer = threading.Thread(target=_write, args=(master, writing, failed), name="backup", daemon=True)
    writer.start()
    try:
        with os.fdopen(reading, "rb") as source:
            while piece := source.read(_PIECE):
                yield piece
    finally:
        writer.join()
    if failed:
        raise failed[0]


def _write(master: Master, descriptor: int, failed: list[BaseException]) -> None:
    directory = Path(tempfile.mkdtemp(dir=master.home, prefix=".backup-"))
    try:
        with os.fdopen(descriptor, "wb") as target, tarfile.open(fileobj=target, mode="w|") as tar:
            _Backup(master, tar).write(directory)
    except BrokenPipeError:
        pass  # whoever read has gone away
    except BaseException as error:
        failed.append(error)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


class _Backup:
    """One backup on its way into a tar file."""

    def __init__(self, master: Master, tar: tarfile.TarFile) -> None:
        self._master, self._tar = master, tar
        self._listed: list[dict[str, Any]] = []

    def write(self, directory: Path) -> None:
        """Write everything. The database is first: the logs then hold at least what it speaks of."""
        home, made_at = self._master.home, clock.now()
        self._file(DATABASE, _copied(home / "keepflow.db", directory / DATABASE))
        key = (home / "order.key").read_bytes()
        self._bytes(ORDER_KEY, self._master.vault.seal(key, ORDER_KEY))
        for name in WRITTEN:
            if (home / name).is_file():
                self._file(f"{FILES}/{name}", home / name)
        for path in sorted(path for name in KEPT for path in (home / name).glob("*/**/*")):
            if path.is_file() and not path.is_symlink():
                with contextlib.suppress(FileNotFoundError):  # let go of meanwhile, as its time was over
                    self._file(str(path.relative_to(home)), path)
        said = {"format": FORMAT, "made_at": made_at, "url": self._master.url(), "files": self._listed}
        self._add(LIST, io.BytesIO(data := json.dumps(said).encode()), len(data))

    def _bytes(self, name: str, data: bytes) -> None:
        self._listed.append(self._add(name, io.BytesIO(data), len(data)))

    def _file(self, name: str, path: Path) -> None:
        """Copy a file as long as it is now; what is written to it meanwhile is of the next backup."""
        with path.open("rb") as file:
            self._listed.append(self._add(name, file, os.fstat(file.fileno()).st_size))

    def _add(self, name: str, file: Any, size: int) -> dict[str, Any]:
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode, entry.mtime = size, 0o600, clock.now() // 1_000_000
        hashing = Hashing(file)
        self._tar.addfile(entry, hashing)
        return {"name": name, "size": size, "sha256": hashing.digest.hexdigest()}


class Hashing:
    """A file to be read once, whose digest is known afterwards."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        """Read on."""
        data: bytes = self._file.read(size)
        self.digest.update(data)
        return data


def _copied(database: Path, to: Path) -> Path:
    """Copy a database that is being written, as it is at one moment."""
    reading = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    with closing(reading) as source, closing(sqlite3.connect(to)) as target:
        source.backup(target)  # in one step: between two, a writer would make it begin again
        target.execute("PRAGMA journal_mode=DELETE")
    to.chmod(0o600)
    return to
