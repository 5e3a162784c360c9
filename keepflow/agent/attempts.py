"""Attempts at script jobs on this disk: what was asked, the log that leaves the host, which fences were ever seen."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from keepflow.agent.logs import Log
from keepflow.agent.progress import Progress
from keepflow.agent.seen import Seen
from keepflow.agent.taken import Taken
from keepflow.core.boxes import new_mark
from keepflow.tools.files import write_unsynced
from keepflow.wire.messages import RunJob

log = Log(__name__)

_ORDER = "attempt.json"
_LOG_KEPT = 7 * 86400.0  #: seconds that a log waits for a master that never asks for it


class AttemptLog:
    """The masked log of one attempt: appended by its job, sent from any offset, kept until the master holds it all."""

    def __init__(self, directory: Path, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._lock = threading.Lock()
        self._file = os.open(directory / "log", os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._acked_file = os.open(directory / "acked", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.size = os.fstat(self._file).st_size
        self.acked = min(int(os.pread(self._acked_file, 20, 0) or b"0"), self.size)

    def append(self, data: bytes) -> None:
        """Add masked bytes; raises OSError when the disk takes them not."""
        view = memoryview(data)
        while view:
            written = os.write(self._file, view)
            view = view[written:]
            self.size += written
        self._wake()

    def read(self, offset: int, limit: int) -> bytes:
        """Return up to `limit` bytes from an offset."""
        return os.pread(self._file, limit, offset)

    def acknowledge(self, offset: int) -> None:
        """Note that the master holds everything below an offset."""
        with self._lock:
            if offset > self.acked:
                self._set_acked(offset)
        self._wake()

    def agree(self, offset: int) -> None:
        """Take the master's word for what it holds: less (it was restored) or more (this host lost power)."""
        with self._lock:
            if offset > self.size:
                os.ftruncate(self._file, offset)
                self.size = offset
            self._set_acked(offset)

    def last_byte(self, end: int) -> bytes:
        """Return the byte before an offset, or nothing at the start."""
        return os.pread(self._file, 1, end - 1) if end else b""

    def close(self) -> None:
        """Give the files back."""
        os.close(self._file)
        os.close(self._acked_file)

    def _set_acked(self, offset: int) -> None:
        self.acked = offset
        os.pwrite(self._acked_file, b"%020d" % offset, 0)


class Attempt:
    """One attempt. Its `mark` is in the environment of all its processes; no job is ever told its `nonce`."""

    def __init__(self, directory: Path, mark: str, nonce: str, order: RunJob, wake: Callable[[], None]) -> None:
        self.directory, self.mark, self.nonce, self.order = directory, mark, nonce, order
        self.log = AttemptLog(directory, wake)
        self.progress = Progress(directory / "progress")
        self._ended = _read_number(directory / "ended")

    @classmethod
    def read(cls, directory: Path, wake: Callable[[], None]) -> Attempt:
        """Take an attempt up from its directory."""
        data = json.loads((directory / _ORDER).read_bytes())
        return cls(directory, str(data["mark"]), str(data["nonce"]), RunJob.model_validate(data["order"]), wake)

    @property
    def fence(self) -> int:
        """The number that names this attempt everywhere."""
        return self.order.fence

    def result(self, step: int, command: int) -> Path:
        """Return where the exit code of a step's command goes; both are counted from 0."""
        return self.directory / f"result-{step:04d}-{command:04d}"

    @property
    def ended(self) -> int | None:
        """The number of the report of its end, or None while it has none."""
        return self._ended

    def end(self, number: int) -> None:
        """Note that its end is on the list of reports; the log may still have to be sent."""
        self._ended = number
        with contextlib.suppress(OSError):  # a full disk: a restart finds the end among the reports
            (self.directory / "ended").write_text(f"{number}\n")


class Attempts:
    """All attempts of one agent directory; `agent` is the id of its key. Any thread may call any method."""

    def __init__(self, root: Path, wake: Callable[[], None] = lambda: None, agent: str = "") -> None:
        self._root = root
        self._wake = wake
        self._agent = agent
        self._lock = threading.Lock()
        self._seen = Seen(root / "seen")
        self._taken = Taken(root / "taken")
        self._held: dict[int, Attempt] = {}
        self._repair()
        for directory in sorted(root.iterdir()):
            if directory.name.isdigit():
                self._open(directory)

    def __iter__(self) -> Iterator[Attempt]:
        with self._lock:
            return iter(list(self._held.values()))

    def get(self, fence: int) -> Attempt | None:
        """Return an attempt that is still on the disk."""
        with self._lock:
            return self._held.get(fence)

    @property
    def highest(self) -> int:
        """The highest fence ever seen here, 0 for none."""
        with self._lock:
            return max([self._seen.highest, *self._held])

    def add(self, order: RunJob) -> Attempt | None:
        """Take a new attempt; it is on the disk for good after `sync`. None when this fence was seen before.

        Raises OutOfSpace.
        """
        with self._lock:
            if order.fence in self._held or order.fence in self._seen:
                return None
            mark, nonce = new_mark(self._agent, order.fence, secrets.token_hex(8)), secrets.token_hex(12)
            text = f'{{"mark": "{mark}", "nonce": "{nonce}", "order": {order.model_dump_json()}}}'
            self._taken.add(order.fence, text)
            attempt = Attempt(_write(self._root, order.fence, text), mark, nonce, order, self._wake)
            self._held[order.fence] = attempt
            return attempt

    def sync(self) -> None:
        """Put every attempt that was added on the disk for good."""
        with self._lock:
            self._taken.sync()

    def sweep(self, confirmed: int) -> None:
        """Take away what the master holds wholly: the report of the end (all up to `confirmed`) and the whole log."""
        held = [
            attempt
            for attempt in self
            if attempt.ended is not None
            and attempt.ended <= confirmed
            and (attempt.log.acked >= attempt.log.size or _forsaken(attempt))
        ]
        if held:
            self._discard(held)

    def _repair(self) -> None:
        """Make again what a power cut took of attempts, and finish removing what was being removed."""
        self._taken.forget([fence for fence in self._taken.texts if fence in self._seen])
        for fence, text in self._taken.texts.items():
            order = self._root / str(fence) / _ORDER
            if not order.exists() or order.read_text(errors="replace") != text:
                _write(self._root, fence, text)
        for directory in self._root.iterdir():
            if directory.name.isdigit() and int(directory.name) in self._seen:
                _remove(directory)

    def _open(self, directory: Path) -> None:
        try:
            attempt = Attempt.read(directory, self._wake)
        except FileNotFoundError:  # a crash came before its order was written: nobody was told of it
            shutil.rmtree(directory, ignore_errors=True)
        except (ValueError, KeyError) as error:  # of another version, or damaged: the master gives it up by itself
            log.broke("an attempt cannot be read and is put aside", error, directory=str(directory))
            directory.rename(directory.with_name(f"unreadable-{directory.name}"))
        else:
            self._held[attempt.fence] = attempt

    def _discard(self, attempts: Sequence[Attempt]) -> None:
        with self._lock:
            gone = [attempt for attempt in attempts if self._held.pop(attempt.fence, None) is not None]
            self._seen.add([attempt.fence for attempt in gone])
            self._taken.forget([attempt.fence for attempt in gone])
            for attempt in gone:
                attempt.log.close()
        # Apart: a disk that is busy takes its time to remove files, and the link to the master waits for nobody.
        threading.Thread(target=_remove_all, args=([one.directory for one in gone],), name="gone", daemon=True).start()


def _write(root: Path, fence: int, text: str) -> Path:
    """Write an order into the directory of its attempt, and return that."""
    directory = root / str(fence)
    directory.mkdir(mode=0o700, exist_ok=True)
    write_unsynced(directory / _ORDER, text.encode(), 0o600)
    return directory


def _remove_all(directories: Sequence[Path]) -> None:
    for directory in directories:
        _remove(directory)


def _remove(directory: Path) -> None:
    """Remove an attempt's directory. Nobody but the agent can reach it, and it hardly ever holds more than files."""
    with contextlib.suppress(OSError):
        for entry in os.scandir(directory):
            os.unlink(entry.path)  # noqa: PTH108 - for every job, so without a Path for each of its files
        directory.rmdir()
        return
    shutil.rmtree(directory, ignore_errors=True)


def _read_number(path: Path) -> int | None:
    text = path.read_text().strip() if path.exists() else ""
    return int(text) if text.isdigit() else None


def _forsaken(attempt: Attempt) -> bool:
    return time.time() - (attempt.directory / "ended").stat().st_mtime > _LOG_KEPT
