"""Restoring a backup into an empty home, offline: nothing is in its place before all of it was read and found whole."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from keepflow.core.text import one_line
from keepflow.crypto.vault import Vault
from keepflow.engine.backing_up import DATABASE, FILES, FORMAT, KEPT, LIST, ORDER_KEY, WRITTEN
from keepflow.errors import BadSeal, Refused, UsageError
from keepflow.store import restoring
from keepflow.store.database import Database
from keepflow.tools.files import read_private, sync_directory, write_atomic

#: A home in which one of these lies is somebody's.
_TAKEN = (DATABASE, "master.key", "order.key", *KEPT)
_PIECE = 64 * 1024
_MOST_LIST = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Backup:
    """What a whole backup says of itself; `made_at` in UTC microseconds."""

    made_at: int
    url: str
    files: int
    size: int


def inspect(backup: Path) -> Backup:
    """Read a backup from end to end and say what it is; raises UsageError `bad-backup` when it is not whole."""
    return _read(backup, None)


def restore(backup: Path, key: Path, home: Path, now: int) -> Backup:
    """Put a backup and the master key that was exported with it into a home that holds no master.

    Raises Refused `home-used`, UsageError `bad-backup` or `other-key`, and what reading the key raises. The caller
    holds the lock of the home.
    """
    taken = [name for name in _TAKEN if (home / name).exists()]
    if taken:
        sentence = f"{home} holds a master already ({', '.join(taken)}); name an empty one with --home"
        raise Refused(sentence, code="home-used")
    vault, directory = Vault.open(key, create=False), Path(tempfile.mkdtemp(dir=home, prefix=".restore-"))
    try:
        found = _read(backup, directory)
        try:
            order_key = vault.unseal((directory / ORDER_KEY).read_bytes(), ORDER_KEY)
        except BadSeal:
            sentence = f"{key} is not the master key of this backup; it opens none of its secrets"
            raise UsageError(sentence, code="other-key") from None
        _skip_numbers(directory / DATABASE, found.made_at, now)
        _put(directory, home)
        write_atomic(home / "order.key", order_key, 0o600)
        write_atomic(home / "master.key", read_private(key), 0o600)
        (directory / DATABASE).rename(home / DATABASE)  # the last: only with it is there a master
        sync_directory(home)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return found


def _skip_numbers(database: Path, made_at: int, now: int) -> None:
    opened = Database(f"sqlite:///{database}")
    try:
        opened.check()
        opened.migrate()
        with opened.writing() as conn, conn.begin():
            restoring.skip_numbers(conn, made_at, now)
    finally:
        opened.dispose()


def _put(directory: Path, home: Path) -> None:
    for name in WRITTEN:
        kept, place = directory / FILES / name, home / name
        if kept.exists() and not place.exists():
            kept.rename(place)
    for name in KEPT:
        if (directory / name).exists():
            (directory / name).rename(home / name)


def _read(backup: Path, into: Path | None) -> Backup:
    """Read every file of a backup, keep it below a directory if one is given, and compare all with the list."""
    seen: dict[str, tuple[int, str]] = {}
    told: Any = None
    try:
        with tarfile.open(backup, mode="r|") as tar:
            for entry in tar:
                source = tar.extractfile(entry) if entry.isreg() and told is None and _is_ours(entry.name) else None
                if source is None or entry.name in seen:
                    raise _not_whole(backup, f"{entry.name[:80]!r} does not belong there")
                if entry.name == LIST:
                    told = json.loads(source.read(_MOST_LIST))
                else:
                    seen[entry.name] = _keep(source, into / entry.name if into else Path(os.devnull))
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise _not_whole(backup, str(error)) from None
    except OSError as error:
        raise UsageError(f"{backup}: cannot be read: {error.strerror or error}", code="bad-backup") from None
    return _compared(backup, seen, told)


def _not_whole(backup: Path, why: str) -> UsageError:
    return UsageError(f"{backup}: this is not a whole backup: {one_line(why, 300)}", code="bad-backup")


def _is_ours(name: str) -> bool:
    path = PurePosixPath(name)
    if str(path) != name or path.is_absolute() or ".." in path.parts:
        return False
    whole = (DATABASE, ORDER_KEY, LIST, *(f"{FILES}/{one}" for one in WRITTEN))
    return name in whole or name.startswith(tuple(f"{kept}/" for kept in KEPT))


def _keep(source: Any, place: Path) -> tuple[int, str]:
    """Read a file to its end, into a place, and return its size and digest."""
    digest, size = hashlib.sha256(), 0
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with os.fdopen(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as target:
        while piece := source.read(_PIECE):
            digest.update(piece)
            size += len(piece)
            target.write(piece)
    return size, digest.hexdigest()


def _compared(backup: Path, seen: dict[str, tuple[int, str]], told: Any) -> Backup:
    if not isinstance(told, dict):
        raise _not_whole(backup, "its end is missing")
    if told.get("format") != FORMAT:
        sentence = f"{backup}: made by another version of keepflow, which this one cannot read"
        raise UsageError(sentence, code="bad-backup")
    try:
        listed = {one["name"]: (one["size"], one["sha256"]) for one in told["files"]}
        made_at, url = int(told["made_at"]), str(told["url"])
    except (KeyError, TypeError, ValueError):
        raise _not_whole(backup, "its list is not readable") from None
    wrong = sorted(name for name in listed.keys() | seen.keys() if listed.get(name) != seen.get(name))
    if wrong or not {DATABASE, ORDER_KEY} <= seen.keys():
        raise _not_whole(backup, f"{', '.join(wrong[:3]) or DATABASE} was changed or is missing")
    return Backup(made_at, url, len(seen), sum(size for size, _ in seen.values()))
