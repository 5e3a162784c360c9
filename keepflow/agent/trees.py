"""Working trees of jobs: what has changed in one since it was looked at, and how changes get into another one.

All work on files is done by programs that run as the jobs' account: a job may swap anything for a link at any moment,
and root would follow it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from keepflow.tools import processes
from keepflow.tools.processes import Account

_TIMEOUT = 600.0
_BATCH = 64 * 1024  #: bytes of paths in one command

Look = Mapping[str, tuple[int, ...]]  #: what every entry of a tree looked like, by its path below the tree


def look(tree: Path) -> Look:
    """Return what every entry of a tree looks like; any write to a file changes it."""
    found: dict[str, tuple[int, ...]] = {}
    for here, directories, files, descriptor in os.fwalk(tree, follow_symlinks=False):
        below = os.path.relpath(here, tree)
        for name in (*directories, *files):
            seen = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            path = name if below == "." else f"{below}/{name}"
            plain = stat.S_ISDIR(seen.st_mode)  # what is in a directory is told by its entries
            found[path] = (seen.st_mode,) if plain else (seen.st_mode, seen.st_ino, seen.st_size, seen.st_ctime_ns)
    return found


def changed(before: Look, after: Look) -> list[str]:
    """Return the paths that came, went or were written."""
    return sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))


def same(path: str, one: Path, other: Path, account: Account | None) -> bool:
    """Say whether two trees hold the same at a path: both nothing, both a directory, or the same bytes."""
    kinds = {_kind(tree / path) for tree in (one, other)}
    if kinds != {stat.S_IFREG}:
        return len(kinds) == 1 and kinds <= {0, stat.S_IFDIR}
    argv = ["cmp", "--silent", "--", str(one / path), str(other / path)]
    return processes.run(argv, timeout=_TIMEOUT, check=False, account=account).exit_code == 0


def bring(paths: Sequence[str], source: Path, into: Path, account: Account | None) -> None:
    """Make a tree hold at these paths what another one holds there. Raises CommandFailed, CommandTimeout."""
    kinds = {path: _kind(source / path) for path in paths}
    gone = [path for path, kind in kinds.items() if _kind(into / path) not in (0, kind)]
    made = [path for path, kind in kinds.items() if kind == stat.S_IFDIR]
    copied = [path for path, kind in kinds.items() if kind not in (0, stat.S_IFDIR)]
    for argv, which in (
        (["rm", "-rf", "--"], gone),
        (["mkdir", "-p", "--"], made),
    ):
        for batch in _batches(which):
            processes.run([*argv, *batch], cwd=into, timeout=_TIMEOUT, account=account)
    for batch in _batches(copied):
        argv = ["cp", "-a", "--reflink=auto", "--parents", "-t", str(into), "--", *batch]
        processes.run(argv, cwd=source, timeout=_TIMEOUT, account=account)


def _kind(path: Path) -> int:
    """Return the kind of an entry, 0 for none."""
    try:
        return stat.S_IFMT(os.lstat(path).st_mode)
    except OSError:
        return 0


def _batches(paths: Sequence[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    length = 0
    for path in paths:
        if batch and length + len(os.fsencode(path)) > _BATCH:
            yield batch
            batch, length = [], 0
        batch.append(f"./{path}")
        length += len(os.fsencode(path)) + 3
    if batch:
        yield batch
