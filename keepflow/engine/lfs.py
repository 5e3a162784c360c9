"""Files that Git LFS keeps, on the master: fetched once with the project's credential, kept by digest for agents."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from keepflow import errors
from keepflow.core.text import quoted
from keepflow.engine import artifacts
from keepflow.engine.context import Master
from keepflow.store.projects import Project
from keepflow.tools.lfs import Pointer, download

_OID = re.compile(r"[0-9a-f]{64}")
_KEPT = 30 * 86400.0  #: seconds without a job that asked for it
_LEFT = 86400.0  #: seconds that what a killed master left half received may lie
_PIECE = 1024 * 1024


def fetched(master: Master, project: Project, oid: str, size: int) -> Path:
    """Return where the bytes of a file lie, fetched if they are not here.

    Raises UsageError, TooLarge, OutOfSpace, Refused `no-lfs`, RemoteError, Undeliverable.
    """
    if not _OID.fullmatch(oid):
        raise errors.UsageError("no sha256 digest", code="bad-digest")
    if size > artifacts.LARGEST:
        raise errors.TooLarge(f"a file of Git LFS has at most {artifacts.LARGEST // 1024**3} GiB")
    place = master.home / "lfs" / project.name / oid[:2] / oid
    if place.exists() and place.stat().st_size == size:
        os.utime(place)
        return place
    if shutil.disk_usage(master.home).free < artifacts.RESERVE + size:
        raise errors.OutOfSpace("the disk of the master is full; free some space under KEEPFLOW_HOME")
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    coming = place.with_name(f"incoming-{os.urandom(8).hex()}")
    try:
        with coming.open("xb") as file, _bytes(master, project, Pointer(oid, size)) as pieces:
            digest, left = hashlib.sha256(), size
            for piece in pieces:
                digest.update(piece)
                left -= len(piece)
                if left < 0:
                    break
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        if left or digest.hexdigest() != oid:
            raise errors.Refused(f"the LFS server has other bytes for {oid[:12]} than it should", code="no-lfs")
        coming.replace(place)
    finally:
        coming.unlink(missing_ok=True)
    return place


def sweep(master: Master, now: float) -> None:
    """Let go of what no job asked for in a while; `now` is the time in seconds."""
    for path in (master.home / "lfs").glob("*/*/*"):
        with contextlib.suppress(FileNotFoundError):
            kept = _LEFT if path.name.startswith("incoming-") else _KEPT
            if path.stat().st_mtime < now - kept:
                path.unlink()


@contextlib.contextmanager
def _bytes(master: Master, project: Project, pointer: Pointer) -> Iterator[Iterator[bytes]]:
    remote = master.mirrors.remote(project)
    if remote.url.startswith(("/", "file:///")):
        # Where git-lfs itself keeps the files of a repository that is a directory.
        oid, root = pointer.oid, Path(remote.url.removeprefix("file://"))
        place = root / "lfs" / "objects" / oid[:2] / oid[2:4] / oid
        try:
            with place.open("rb") as file:
                yield iter(lambda: file.read(_PIECE), b"")
        except FileNotFoundError:
            raise errors.Refused(f"{pointer.oid[:12]} is not in {quoted(remote.url)}", code="no-lfs") from None
    elif remote.url.startswith(("http://", "https://")):
        with download(remote.url, remote.token, pointer) as pieces:
            yield pieces
    else:
        sentence = "files of Git LFS are fetched over https; give the project such an address, and git: {token_file: …}"
        raise errors.Refused(sentence, code="no-lfs")
