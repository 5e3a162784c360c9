"""Files that are whole or absent: written beside their place, fsynced, then moved into it."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from pathlib import Path

from keepflow import errors

#: Group may read (systemd credentials do so); nobody else may do anything.
_TOO_OPEN = stat.S_IWGRP | stat.S_IRWXO


def write_atomic(path: Path, data: bytes, mode: int = 0o644, *, replace: bool = True) -> None:
    """Put `data` at `path` with exactly `mode`; after a crash or power cut the file is the old one or the new one.

    With `replace=False` an existing file is never touched: raises FileExistsError. Raises OutOfSpace.
    """
    try:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        beside = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fchmod(file.fileno(), mode)
                os.fsync(file.fileno())
            if replace:
                beside.replace(path)
            else:
                path.hardlink_to(beside)
        finally:
            beside.unlink(missing_ok=True)
        sync_directory(path.parent)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise errors.OutOfSpace(f"{path}: the disk is full; free some space and try again") from error
        raise


def write_unsynced(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Put `data` at `path` at once, for what can be made again: a power cut may leave it empty."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "wb") as file:
        file.write(data)
    fresh.replace(path)


def sync_directory(path: Path) -> None:
    """Make renames and new names in a directory survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_private(path: Path) -> bytes:
    """Return the bytes of a file that holds a key or a password.

    Raises Unavailable `key-missing` naming the path, and UsageError `key-exposed` when others may read or change it.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read()
    except OSError as error:
        raise errors.Unavailable(f"{path}: cannot be read: {error.strerror}", code="key-missing") from error
    if mode & _TOO_OPEN:
        raise errors.UsageError(
            f"{path}: other accounts may read or change it (mode {stat.S_IMODE(mode):04o}); run: chmod 600 {path}",
            code="key-exposed",
        )
    return data
