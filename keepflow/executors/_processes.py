"""Processes of a job that are looked up by what the kernel says of them, so that also a restarted agent finds them."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

_LOOK_EVERY = 0.02  #: seconds between the first looks while processes are ending; looks get rarer up to …
_LOOK_SELDOM = 0.1
_KERNEL_THREAD = 0x00200000  #: PF_KTHREAD
_PIECE = 64 * 1024
_GIVE_UP = 5.0  #: seconds after SIGKILL; what is still there hangs in the kernel and cannot be ended by anybody


@dataclass(frozen=True, slots=True)
class Seen:
    """One living process as /proc tells it; `started` (clock ticks since boot) tells a reused pid from the old one."""

    pid: int
    parent: int
    group: int
    started: int


def look(pid: int) -> Seen | None:
    """Return a living process, or None when there is none with this number (a zombie is not alive)."""
    try:
        fields = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    if fields[0] in (b"Z", b"X") or int(fields[6]) & _KERNEL_THREAD:
        return None
    return Seen(pid, int(fields[1]), int(fields[2]), int(fields[19]))


def everyone() -> dict[int, Seen]:
    """Return all living processes of this machine by their numbers."""
    found = (look(int(name)) for name in os.listdir("/proc") if name.isdigit())  # noqa: PTH208 - names are enough
    return {seen.pid: seen for seen in found if seen is not None}


def marked(
    mark: str | None, group: int | None = None, since: float = 0.0, among: Mapping[int, Seen] | None = None
) -> list[Seen]:
    """List the living processes that carry `mark` (`NAME=value`) in their environment, are in `group`, or descend from
    one of these; only those of our own pid namespace, so never the inside of a container.

    None is older than `since` (`uptime`). `among` is who lives, when that was looked at already.
    """
    known, ticks = everyone() if among is None else among, since * os.sysconf("SC_CLK_TCK")
    needle = b"\0" + mark.encode() + b"\0" if mark else None
    found = {
        pid
        for pid, seen in known.items()
        if seen.group == group or (needle and seen.started >= ticks and _carries(pid, needle))
    }
    children: dict[int, list[int]] = {}
    for pid, seen in known.items() if found else ():
        children.setdefault(seen.parent, []).append(pid)
    waiting = list(found)
    while waiting:
        fresh = [child for child in children.get(waiting.pop(), ()) if child not in found]
        found.update(fresh)
        waiting += fresh
    own = _namespace("self") if found else None
    return [known[pid] for pid in sorted(found) if pid != os.getpid() and _namespace(str(pid)) == own]


def strays(user: int, since: float, living: Iterable[str], among: Mapping[int, Seen] | None = None) -> list[Seen]:
    """List the processes of an account that ran away from their job: left to init (or to what stands between us and
    it), begun after `since` (`uptime`), without a mark of the `living` jobs; also what descends from them.
    """
    ticks, everybody = since * os.sysconf("SC_CLK_TCK"), everyone() if among is None else among
    known = {pid: seen for pid, seen in everybody.items() if seen.started >= ticks and _user(pid) == user}
    if not known:
        return []
    own, reapers = _namespace("self"), _ancestors(os.getpid())
    spared = [b"\0" + mark.encode() + b"\0" for mark in living]
    return [
        seen
        for seen in known.values()
        if _first(seen, known).parent in reapers
        and not any(_carries(seen.pid, mark) for mark in spared)
        and _namespace(str(seen.pid)) == own
    ]


def uptime() -> float:
    """Return the seconds since boot, as the kernel dates processes; a little early, never late."""
    return float(_read("/proc/uptime").split()[0]) - 0.02


def end(mark: str | None, group: int | None, grace: float, since: float = 0.0) -> bool:
    """End every process of a mark and a group: SIGTERM, and SIGKILL after `grace` seconds. True when all are gone."""
    return end_all(lambda: marked(mark, group, since), grace)


def end_all(find: Callable[[], list[Seen]], grace: float) -> bool:
    """End every process that `find` finds, again and again: SIGTERM, and SIGKILL after `grace` seconds."""
    asked: set[int] = set()
    pause = _LOOK_EVERY
    patience = time.monotonic() + grace
    while alive := find():
        now = time.monotonic()
        if now > patience + _GIVE_UP:
            return False
        if now >= patience:
            _signal(alive, signal.SIGKILL)
            pause = _LOOK_EVERY
        else:
            _signal([seen for seen in alive if seen.pid not in asked], signal.SIGTERM)
            asked.update(seen.pid for seen in alive)
        time.sleep(min(pause, max(0.001, patience - now)))
        pause = min(pause * 1.5, _LOOK_SELDOM)
    return True


def _read(path: str) -> bytes:
    """Return what the kernel says in a file of /proc; it is asked of every process, so without a file object."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = piece = os.read(descriptor, _PIECE)
        while piece:  # a short answer is no end: the kernel may give less than there is
            piece = os.read(descriptor, _PIECE)
            data += piece
        return data
    finally:
        os.close(descriptor)


def _ancestors(pid: int) -> set[int]:
    found: set[int] = set()
    while (seen := look(pid)) is not None and seen.parent:
        found.add(pid := seen.parent)
    return found


def _first(seen: Seen, known: dict[int, Seen]) -> Seen:
    """Return the oldest ancestor among the known."""
    while seen.parent in known:
        seen = known[seen.parent]
    return seen


def _user(pid: int) -> int | None:
    try:
        return os.stat(f"/proc/{pid}").st_uid  # noqa: PTH116 - asked of every process of the machine, so fast
    except OSError:
        return None


def _carries(pid: int, needle: bytes) -> bool:
    try:
        return needle in b"\0" + _read(f"/proc/{pid}/environ")
    except OSError:  # gone meanwhile, or another account's: then it is not ours either
        return False


def _namespace(pid: str) -> str | None:
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")  # noqa: PTH115 - a magic link, its text is the answer
    except OSError:
        return None


def _signal(processes: Iterable[Seen], number: signal.Signals) -> None:
    for seen in processes:
        now = look(seen.pid)
        if now is not None and now.started == seen.started:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(seen.pid, number)
