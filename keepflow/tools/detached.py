"""Programs that outlive whoever starts them, and are found again without ever mistaking a stranger for them.

A pid file holds process number, start time and boot id, written by the process itself before it becomes the program:
there is no moment at which it runs unknown. Each program leads a session of its own, so children whose parent was
killed (workers of nginx) are found by it.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from keepflow import errors
from keepflow.tools import processes

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_LOG_TAIL = 4096
_SESSION, _START = 3, 19  #: places in /proc/PID/stat, counted from the state
#: $1 pid file, $2 log file, then the program. The 22nd word of /proc/PID/stat is the start time; exec keeps both.
_BECOME = """
umask 077
exec </dev/null >>"$2" 2>&1
read -r boot </proc/sys/kernel/random/boot_id
start=$(set -- $(cat /proc/$$/stat) && echo "${22}")
printf '%s %s %s\\n' "$$" "$start" "$boot" >"$1.new" && mv "$1.new" "$1" || exit 1
shift 2
exec "$@"
"""


@dataclass(frozen=True, slots=True)
class Detached:
    """One program, known by its pid file; what it prints goes to the end of its log file."""

    pid_file: Path
    log_file: Path

    def start(self, argv: Sequence[str], env: Mapping[str, str] | None = None) -> None:
        """Start the program, detached; returns once the pid file names it. What was left of an earlier one is ended.

        `env` is its whole environment; None = a small clean one.
        """
        self.stop()
        processes.run(
            ["setsid", "--fork", "sh", "-c", _BECOME, "sh", str(self.pid_file), str(self.log_file), *argv],
            cwd=Path("/"),
            env=env,
            timeout=30,
        )
        if not _becomes_true(self.pid_file.exists, 5):
            raise errors.Unavailable(f"{argv[0]} was started but wrote no {self.pid_file}; see {self.log_file}")

    def pid(self) -> int | None:
        """Return the program's process number while it runs, else None."""
        recorded = self._recorded()
        return recorded[0] if recorded and _start_time(recorded[0]) == recorded[1] else None

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the program, if it runs."""
        if (pid := self.pid()) is not None:
            _send(pid, number, lambda: self.pid() == pid)

    def stop(self, grace: float = 10.0) -> bool:
        """End the program and its children, with SIGKILL after `grace` seconds; says whether there was anything."""
        members = self._members()
        # While the leader lives it alone is asked: a master of nginx ends its workers in good order.
        self._send_to(members[:1] if self.pid() else members, signal.SIGTERM)
        if not _becomes_true(lambda: not self._members(), grace):
            self._send_to(self._members(), signal.SIGKILL)
            _becomes_true(lambda: not self._members(), 5)
        self.pid_file.unlink(missing_ok=True)
        return bool(members)

    def last_words(self) -> str:
        """Return the end of the log file."""
        try:
            with self.log_file.open("rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - _LOG_TAIL))
                return file.read().decode(errors="replace").strip()
        except FileNotFoundError:
            return ""

    def _recorded(self) -> tuple[int, int] | None:
        try:
            pid, start, boot = self.pid_file.read_text().split()
            return (int(pid), int(start)) if boot == _BOOT_ID.read_text().strip() else None
        except (FileNotFoundError, ValueError):
            return None

    def _members(self) -> list[int]:
        """Find the program, first, and what is left of its session: processes that still write this log file."""
        recorded = self._recorded()
        if recorded is None:
            return []
        leader, started = recorded
        orphans = [pid for pid in _everyone() if pid != leader and self._is_child(pid, leader, started)]
        return [leader, *orphans] if _start_time(leader) == started else orphans

    def _is_child(self, pid: int, leader: int, started: int) -> bool:
        words = _stat(pid)
        if words is None or int(words[_SESSION]) != leader or int(words[_START]) < started:
            return False
        try:
            return Path(f"/proc/{pid}/fd/2").readlink() == self.log_file
        except OSError:
            return False

    def _send_to(self, members: list[int], number: signal.Signals) -> None:
        for pid in members:
            _send(pid, number, lambda pid=pid: pid in self._members())  # type: ignore[misc]  # the default binds it


def _everyone() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _stat(pid: int) -> list[str] | None:
    """Return the words of /proc/PID/stat from the state on, or None for a process that is gone or a zombie."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if words[0] in "ZX" else words


def _start_time(pid: int) -> int | None:
    words = _stat(pid)
    return int(words[_START]) if words else None


def _send(pid: int, number: signal.Signals, is_still_meant: Callable[[], bool]) -> None:
    """Send a signal through a descriptor opened before the process was recognised, so that it cannot be another one."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if is_still_meant():
            signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return
    finally:
        os.close(descriptor)


def _becomes_true(condition: Callable[[], bool], patience: float) -> bool:
    deadline = time.monotonic() + patience
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True
