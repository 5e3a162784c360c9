"""Files that the agent itself lays into a checkout: no link that a repository or a job laid is followed on the way."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

from keepflow.executors.shell import Account

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
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


def own(descriptor: int, account: Account | None) -> None:
    """Give an open file or directory to the jobs' account."""
    if account is not None:
        os.fchown(descriptor, account.uid, account.gid)
