"""Every log file of the master, owned by one thread: masked once more, written, synced, and only then acknowledged."""

from __future__ import annotations

import errno
import queue
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path

import structlog

from keepflow import errors
from keepflow.core.masking import Sought
from keepflow.crypto.vault import Vault
from keepflow.engine import lending, logfile
from keepflow.engine.logfile import LogFile
from keepflow.engine.wakes import Wakes
from keepflow.store import jobs, projects
from keepflow.store.database import Database

log = structlog.get_logger(__name__)

_SYNC_EVERY = 0.03  #: seconds that written bytes wait for their sync, at most
_SYNC_BYTES = 2 * 1024 * 1024  #: written bytes that make a sync due at once
_OPEN_FILES = 200
_READY = 50  #: sets of secrets that are kept ready to be looked for


@dataclass(frozen=True, slots=True)
class _Facts:
    """What the database knows of an attempt's log; `total` is how long the agent says it is, once the attempt ended."""

    agent_id: int | None
    path: str
    needles: Sought
    total: int | None


@dataclass(slots=True)
class _Open:
    facts: _Facts
    file: LogFile
    acks: list[Future[int]] = field(default_factory=list)


class Logs:
    """Takes log bytes of agents and lets everybody read them. Safe from any thread."""

    def __init__(self, home: Path, database: Database, vault: Vault, wakes: Wakes) -> None:
        self._root = home / "logs"
        self._database, self._vault, self._wakes = database, vault, wakes
        self._tasks: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._files: dict[int, _Open] = {}
        self._ready: dict[tuple[str, ...], Sought] = {}
        self._sync_due: float | None = None
        self._thread = threading.Thread(target=self._run, name="logs", daemon=True)

    def start(self) -> None:
        """Begin to take bytes."""
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._thread.start()

    def close(self, timeout: float = 10.0) -> None:
        """Sync what was taken and stop, after `timeout` seconds at the latest."""
        self._tasks.put(None)
        if self._thread.is_alive():
            self._thread.join(timeout)

    def append(self, fence: int, offset: int, data: bytes, *, agent_id: int) -> Future[int]:
        """Take bytes of an attempt's log; the future gives the agent offset up to which the log is safe.

        Bytes that are known already, or that leave a gap, change nothing; the answer says where to go on. The future
        raises NotFound when this agent never had this attempt, and OutOfSpace.
        """
        future: Future[int] = Future()
        self._tasks.put(lambda: self._append(future, fence, offset, data, agent_id))
        return future

    def finish(self, fence: int, total: int) -> None:
        """Say that an attempt has ended, and how long its agent says the log is: no byte is held back any longer then.

        0 is for an agent that says no length: its log stays open for more.
        """
        self._tasks.put(lambda: self._finish(fence, total))

    def acked(self, fences: Iterable[int], *, agent_id: int) -> Future[dict[int, int]]:
        """Return how much of each log the master holds safely; attempts this agent never had are left out."""
        future: Future[dict[int, int]] = Future()
        self._tasks.put(lambda: self._acked(future, tuple(fences), agent_id))
        return future

    def put(self, path: str, text: str) -> None:
        """Write a whole log that keepflow itself has to say, such as the problems of a flow file."""
        self._tasks.put(lambda: self._put(path, text.encode(errors="replace")))

    def remove(self, paths: Iterable[str]) -> None:
        """Remove logs that no attempt has any more."""
        self._tasks.put(lambda: self._remove(tuple(paths)))

    # --- reading, from any thread ---

    def read(self, path: str, start: int, limit: int) -> bytes:
        """Return up to `limit` bytes of a log from a file offset; nothing when there is no such log (any more)."""
        if not path:
            return b""
        try:
            with self._place(path).open("rb") as file:
                file.seek(start)
                return file.read(limit)
        except FileNotFoundError:
            return b""

    def size(self, path: str) -> int:
        """Return how many bytes of a log can be read."""
        if not path:
            return 0
        try:
            return self._place(path).stat().st_size
        except FileNotFoundError:
            return 0

    def length(self, path: str) -> int:
        """Return how much of a log can be read, as its agent counts; masking makes files longer or shorter."""
        if not path:
            return 0
        return logfile.agent_offset(logfile.read_index(self._place(path)), self.size(path))

    def place_of(self, path: str, agent_offset: int) -> int:
        """Return the file offset of an agent offset, such as the beginning of a step."""
        if not path:
            return 0
        return logfile.file_offset(logfile.read_index(self._place(path)), agent_offset)

    def _place(self, path: str) -> Path:
        place = self._root / path
        if ".." in place.parts or not place.is_relative_to(self._root):
            raise errors.UsageError(f"not a log: {path[:80]!r}", code="bad-path")
        return place

    # --- the log thread ---

    def _run(self) -> None:
        while True:
            try:
                task = self._tasks.get(timeout=self._patience())
            except queue.Empty:
                self._sync()
                continue
            if task is None:
                break
            task()
            if self._sync_due is not None and time.monotonic() >= self._sync_due:
                self._sync()
        self._sync()
        for entry in self._files.values():
            entry.file.close()

    def _patience(self) -> float | None:
        return None if self._sync_due is None else max(0.0, self._sync_due - time.monotonic())

    def _append(self, future: Future[int], fence: int, offset: int, data: bytes, agent_id: int) -> None:
        try:
            entry = self._entry(fence, agent_id)
            entry.file.append(offset, data)
            self._flush_at_end(entry)
        except Exception as error:
            self._drop(fence, error)
            future.set_exception(_told(error))
            return
        entry.acks.append(future)
        if entry.file.dirty >= _SYNC_BYTES:
            self._sync_due = time.monotonic()
        elif self._sync_due is None:
            self._sync_due = time.monotonic() + _SYNC_EVERY
        self._wakes.fire(f"log:{fence}")

    def _finish(self, fence: int, total: int) -> None:
        entry = self._files.get(fence)
        if entry is None:
            return  # the next bytes, if any are missing, find the length in the database
        try:
            entry.facts = replace(entry.facts, total=total or None)
            self._flush_at_end(entry)
        except Exception as error:
            self._drop(fence, error)
            return
        self._sync_due = self._sync_due or time.monotonic() + _SYNC_EVERY
        self._wakes.fire(f"log:{fence}")

    def _flush_at_end(self, entry: _Open) -> None:
        if entry.facts.total is not None and entry.file.taken >= entry.facts.total:
            entry.file.flush()

    def _sync(self) -> None:
        self._sync_due, named = None, set[Path]()
        for fence, entry in list(self._files.items()):
            try:
                safe = entry.file.sync(named)
            except OSError as error:
                self._drop(fence, error)
                continue
            for future in entry.acks:
                future.set_result(safe)
            entry.acks.clear()
            if entry.facts.total is not None and safe >= entry.facts.total:
                self._files.pop(fence).file.close()

    def _acked(self, future: Future[dict[int, int]], fences: tuple[int, ...], agent_id: int) -> None:
        held: dict[int, int] = {}
        try:
            for fence in fences:
                try:
                    held[fence] = self._entry(fence, agent_id).file.sync()
                except errors.NotFound:
                    continue
        except Exception as error:
            future.set_exception(_told(error))
            return
        future.set_result(held)

    def _remove(self, paths: tuple[str, ...]) -> None:
        for path in paths:
            place = self._place(path)
            for file in (place, logfile.index_path(place)):
                file.unlink(missing_ok=True)

    def _put(self, path: str, data: bytes) -> None:
        try:
            file = LogFile(self._place(path), ())
            file.append(0, data)
            file.sync()
            file.close()
        except OSError:
            log.exception("a log could not be written", path=path)

    def _entry(self, fence: int, agent_id: int) -> _Open:
        entry = self._files.get(fence)
        if entry is None:
            facts = self._facts(fence)
            if facts is None or facts.agent_id != agent_id:
                raise errors.NotFound(f"this agent never had attempt {fence}")
            self._make_room()
            entry = self._files[fence] = _Open(facts, LogFile(self._place(facts.path), facts.needles))
        elif entry.facts.agent_id != agent_id:
            raise errors.NotFound(f"this agent never had attempt {fence}")
        return entry

    def _facts(self, fence: int) -> _Facts | None:
        with self._database.read() as conn:
            found = jobs.log_of(conn, fence)
            if found is None:
                return None
            lent = lending.of_project(conn, self._vault, projects.by_id(conn, found.project_id))
        return _Facts(found.agent_id, found.path, self._sought(lent.secrets), found.total or None)

    def _sought(self, secrets: tuple[str, ...]) -> Sought:
        """Make ready what to look for; the same secrets as in the last logs need no new work."""
        known = self._ready.get(secrets)
        if known is None:
            if len(self._ready) >= _READY:
                self._ready.clear()
            known = self._ready[secrets] = lending.sought(secrets)
        return known

    def _make_room(self) -> None:
        if len(self._files) < _OPEN_FILES:
            return
        self._sync()
        for fence in [fence for fence, entry in self._files.items() if entry.file.idle][: _OPEN_FILES // 2]:
            self._files.pop(fence).file.close()

    def _drop(self, fence: int, error: Exception) -> None:
        """Forget an open file after an error; the agent still has what was not acknowledged."""
        entry = self._files.pop(fence, None) if isinstance(error, OSError) else None
        if entry is None:
            return
        log.error("a log could not be written", path=entry.facts.path, error=str(error))
        entry.file.close()
        for future in entry.acks:
            future.set_exception(_told(error))


def _told(error: Exception) -> Exception:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return errors.OutOfSpace("the disk for logs is full; free some space under KEEPFLOW_HOME/logs")
    return error
