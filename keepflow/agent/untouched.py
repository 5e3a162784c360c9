"""Whether a kept checkout is still, byte for byte, as git left it, without asking git, which takes two processes.

Nobody can change a file, its mode or its owner, or add and remove a name, without the kernel moving the change time
(`ctime`) of that file or directory on; no call sets it. So a tree whose every entry has the number, the type and the
change time it had is the tree it was; git itself takes the same for proof of each file it knows. The kernel's clock for
it ticks only every few milliseconds: a tree in which something changed within the tick of the look proves nothing, as a
later change could bear the same time.
"""

from __future__ import annotations

import hashlib
import os
import struct
from pathlib import Path

_MOST = 2000  #: entries; beyond it git is as quick
_ENTRY = struct.Struct("=QQIIIQqqQ")


def look(tree: Path, clock: Path) -> bytes | None:
    """Return a sum of all that a tree holds, or None when it is large or when something changed just now.

    Nobody may work in it meanwhile. `clock` is a file of the agent's own beside it: it tells the time of the file
    system, which need not be this machine's.
    """
    os.utime(clock)
    now, seen = clock.stat().st_ctime_ns, hashlib.blake2b(digest_size=32)
    waiting, left = [os.fspath(tree)], _MOST
    while waiting:
        directory = waiting.pop()
        with os.scandir(directory) as found:
            entries = sorted(found, key=lambda entry: entry.name)
        left -= len(entries)
        if left < 0 or not _add(seen, ".", os.lstat(directory), now):
            return None
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                waiting.append(entry.path)
                seen.update(os.fsencode(entry.name) + b"\0")
            elif not _add(seen, entry.name, entry.stat(follow_symlinks=False), now):
                return None
        seen.update(b"\0")
    return seen.digest()


def _add(seen: hashlib.blake2b, name: str, entry: os.stat_result, now: int) -> bool:
    """Add an entry to a sum; False when it changed in the present tick of the clock, or after it."""
    seen.update(os.fsencode(name) + b"\0")
    seen.update(
        _ENTRY.pack(
            entry.st_dev,
            entry.st_ino,
            entry.st_mode,
            entry.st_uid,
            entry.st_gid,
            entry.st_size,
            entry.st_mtime_ns,
            entry.st_ctime_ns,
            entry.st_nlink,
        )
    )
    return entry.st_ctime_ns < now
