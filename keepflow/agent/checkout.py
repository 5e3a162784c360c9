"""Files that the agent itself lays into a checkout: no link that a repository or a job laid is followed on the way."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path

from keepflow import errors
from keepflow.core.text import quoted
from keepflow.executors.shell import Account

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FIND = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def split(path: str) -> tuple[list[str], str]:
    """Return the directories and the name of a path inside a checkout; raises OSError for any other path."""
    *parents, name = path.split("/")
    if {"", ".", ".."} & {*parents, name}:
        raise OSError(None, "it is no path inside of it")
    return parents, name


def enter(root: Path, parents: Sequence[str], account: Account | None) -> int:
    """Return the open directory `parents` below `root`, made where missing; a link on the way is an OSError."""
    current = os.open(root, DIRECTORY)
    for name in parents:
        try:
            made = False
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o755, dir_fd=current)
                made = True
            following = os.open(name, DIRECTORY, dir_fd=current)
            if made:
                own(following, account)
        finally:
            os.close(current)
        current = following
    return current


def new_file(directory: int, name: str, mode: int, account: Account | None) -> int:
    """Return a new open file that belongs to the jobs' account; one that exists is an OSError."""
    descriptor = os.open(name, _NEW_FILE, mode, dir_fd=directory)
    own(descriptor, account)
    return descriptor


def plain_file(directory: int, name: str, account: Account | None) -> int | None:
    """Open a regular file that is nobody else's under another name; None for anything else."""
    try:
        descriptor = os.open(name, _FIND, dir_fd=directory)
    except OSError:
        return None
    seen = os.fstat(descriptor)
    strange = account is not None and seen.st_nlink > 1 and seen.st_uid != account.uid
    if stat.S_ISREG(seen.st_mode) and not strange:
        return descriptor
    os.close(descriptor)
    return None


def lay(
    root: Path, path: str, data: Iterable[bytes], sha256: str, *, executable: bool, coming: str, account: Account | None
) -> None:
    """Lay a file into a checkout, whole or not at all; what is in its place goes. `coming` is its name meanwhile.

    Raises OSError when it has no place there, and RemoteError when the bytes are others than announced.
    """
    parents, name = split(path)
    directory, digest = enter(root, parents, account), hashlib.sha256()
    try:
        try:
            with os.fdopen(new_file(directory, coming, 0o755 if executable else 0o644, account), "wb") as file:
                for piece in data:
                    digest.update(piece)
                    file.write(piece)
            if digest.hexdigest() != sha256:
                raise errors.RemoteError(f"other bytes came for {quoted(path)} than were kept", code="bad-digest")
            os.rename(coming, name, src_dir_fd=directory, dst_dir_fd=directory)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(coming, dir_fd=directory)
    finally:
        os.close(directory)


def own(descriptor: int, account: Account | None) -> None:
    """Give an open file or directory to the jobs' account."""
    if account is not None:
        os.fchown(descriptor, account.uid, account.gid)
