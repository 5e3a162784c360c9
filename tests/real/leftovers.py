"""What a second host leaves behind when its maker is killed, and how it is found again and removed."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from tests.real.waiting import wait_until

STATE = Path("/var/lib/keepflow-test")  #: one directory per second host; short, for socket paths, and on a disk


def sweep() -> list[str]:
    """Remove the second hosts whose maker has ended without closing them; return their names. Safe to call any time."""
    with one_at_a_time():
        swept = [directory for directory in sorted(STATE.glob("kft-*")) if orphaned(directory)]
        for directory in swept:
            remove(directory)
    return [directory.name for directory in swept]


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Hold the lock under which addresses are chosen and leftovers are removed; it ends with the process."""
    STATE.mkdir(parents=True, exist_ok=True)
    with (STATE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def read_record(directory: Path) -> dict[str, Any]:
    """Return what was written down about a host; nothing when its maker did not come so far."""
    try:
        told: dict[str, Any] = json.loads((directory / "host.json").read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return told


def write_record(directory: Path, **more: str) -> None:
    """Write down whose a directory is (this process's) and what else a later run must know to take it away."""
    directory.mkdir(parents=True, exist_ok=True)
    unfinished = directory / "host.json.part"
    unfinished.write_text(json.dumps({"owner": os.getpid(), "born": born(os.getpid()), **more}))
    unfinished.replace(directory / "host.json")


def orphaned(directory: Path) -> bool:
    """Say whether the process whose a directory is has ended."""
    told = read_record(directory)
    return not told or not alive(told["owner"]) or born(told["owner"]) != told["born"]


def remove(directory: Path) -> None:
    """Remove a second host, whatever is left of it: processes first, then the namespace, then the files."""
    name = directory.name
    if Path("/run/netns", name).exists():
        wait_until(lambda: not _kill_all(name), 20, f"the end of all processes of {name}")
    cable = read_record(directory).get("cable")
    if cable and Path("/sys/class/net", cable).exists():
        ip("link", "delete", cable)
    if Path("/run/netns", name).exists():
        ip("netns", "delete", name)
    # The record goes last, so that removal that was broken off is taken up again.
    for child in sorted(directory.iterdir(), key=lambda path: path.name == "host.json"):
        wait_until(partial(_delete, child), 20, f"removal of {child}")
    directory.rmdir()


def _delete(path: Path) -> bool:
    """Delete a file or a tree; a mount that is just going away makes it try again."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
    return True


def _kill_all(name: str) -> set[int]:
    """Kill all processes of a namespace and their children, which may live in others; return who was still there."""
    # A container has a network namespace of its own; it is found as a child of the engine's shim.
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        parent = _stat(int(entry.name), 1)
        if parent is not None:
            children.setdefault(parent, []).append(int(entry.name))
    doomed: set[int] = set()
    fresh = {int(pid) for pid in ip("netns", "pids", name).split()}
    while fresh:
        doomed |= fresh
        fresh = {child for pid in fresh for child in children.get(pid, [])} - doomed
    for pid in doomed:
        _kill(pid)
    return {pid for pid in doomed if alive(pid)}


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _stat(pid: int, field: int) -> int | None:
    """Return a numeric field of /proc/PID/stat, counted behind the program's name (0 is the state); None when gone."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[field])
    except (FileNotFoundError, ProcessLookupError):
        return None


def alive(pid: int) -> bool:
    """Say whether a process runs; one that ended and waits for its parent does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def born(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot: with its id it names one process for ever."""
    return _stat(pid, 19)


def ip(*argv: str) -> str:
    """Run `ip` and return its output."""
    done = subprocess.run(["ip", *argv], capture_output=True, text=True, timeout=30)
    if done.returncode:
        raise RuntimeError(f"ip {' '.join(argv)}: {done.stderr.strip()}")
    return done.stdout
