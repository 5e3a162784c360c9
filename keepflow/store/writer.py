"""The one writing connection: closures in, fsynced commits out.

Whoever wants to change the database hands in a short closure. One thread runs the closures that are waiting, each in
its own savepoint, commits them together and only then resolves their futures. A lone closure is committed at once;
while the disk syncs, the next group gathers. So durability costs one sync for many, and nobody waits for company.
"""

from __future__ import annotations

import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

import structlog
from sqlalchemy import Connection
from sqlalchemy.exc import DatabaseError, DBAPIError

from keepflow import errors
from keepflow.store.database import Database
from keepflow.tools.failpoints import fail

T = TypeVar("T")
log = structlog.get_logger(__name__)

#: After one of these the kernel may have thrown the dirty pages away: a second fsync would lie.
_FSYNC_FAILED = {getattr(sqlite3, name) for name in ("SQLITE_IOERR_FSYNC", "SQLITE_IOERR_DIR_FSYNC")}
_DISK_TROUBLE = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}
_PG_DISK_FULL = "53100"


@dataclass(slots=True)
class Tx:
    """An open write transaction, as one closure sees it. `chain` is the last link of the event chain, once read."""

    conn: Connection
    chain: str | None = None
    callbacks: list[Callable[[], None]] = field(default_factory=list)

    def after_commit(self, callback: Callable[[], None]) -> None:
        """Call back in the writer thread once this closure's changes are committed; never when they are not."""
        self.callbacks.append(callback)


@dataclass(slots=True)
class _Task:
    work: Callable[[Tx], Any]
    future: Future[Any]
    result: Any = None
    error: BaseException | None = None


class Writer:
    """Runs closures against the database, one after the other, with group commit. Safe from any thread."""

    def __init__(self, database: Database, window: float = 0.002) -> None:
        """`window` is how long, in seconds, a group may go on taking closures that are already waiting."""
        self._database = database
        self._window = window
        self._queue: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        self._gate = threading.Lock()
        self._open = False
        self._closed_because = "the store is not open"
        self._sync_failed = False
        self._conn: Connection | None = None
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)

    def start(self) -> None:
        """Open the connection and begin to take closures."""
        self._conn = self._database.writing()
        self._open = True
        self._thread.start()

    def close(self, timeout: float = 10.0) -> None:
        """Take nothing more, commit what was taken, and return when that is done or after `timeout` seconds."""
        if self._shut("the store is closed"):
            self._queue.put(None)
        if self._thread.is_alive():
            self._thread.join(timeout)

    @property
    def alive(self) -> bool:
        """Whether closures are taken."""
        return self._open

    def submit(self, work: Callable[[Tx], T]) -> Future[T]:
        """Hand in a closure; the future is resolved with its result after the fsynced commit.

        The future raises what the closure raised, OutOfSpace when the disk is full, and Unavailable `store-closed`;
        in all three cases nothing of the closure was committed. Raises Unavailable `store-closed` at once when closed.
        """
        future: Future[T] = Future()
        future.set_running_or_notify_cancel()  # from here on it cannot be taken back
        with self._gate:
            if not self._open:
                raise errors.Unavailable(self._closed_because, code="store-closed")
            self._queue.put(_Task(work, future))
        return future

    def call(self, work: Callable[[Tx], T], timeout: float = 30.0) -> T:
        """Hand in a closure and wait for its commit.

        Raises what the future of `submit` raises, and Unavailable `store-busy` after `timeout` seconds.
        """
        if threading.current_thread() is self._thread:
            raise RuntimeError("a closure in the writer thread must use its Tx, not wait for another closure")
        try:
            return self.submit(work).result(timeout)
        except TimeoutError as error:
            raise errors.Unavailable(f"the store did not commit within {timeout:g} s", code="store-busy") from error

    # --- the writer thread ---

    def _run(self) -> None:
        while not self._sync_failed and (task := self._queue.get()) is not None:
            group = _Group(task)
            try:
                self._commit(group)
            except BaseException as error:
                self._fail(group, error)
            else:
                group.resolve()
        if self._conn is not None:
            self._conn.close()
        self._refuse_rest()

    def _commit(self, group: _Group) -> None:
        with self._connection().begin() as transaction:
            tx = Tx(transaction.connection)
            group.perform(tx)
            deadline = time.monotonic() + self._window
            while time.monotonic() < deadline and (task := self._waiting()) is not None:
                group.tasks.append(task)
                group.perform(tx)
            fail("store.before-commit")
        fail("store.after-commit")

    def _waiting(self) -> _Task | None:
        try:
            task = self._queue.get_nowait()
        except queue.Empty:
            return None
        if task is None:
            self._queue.put(None)  # the end comes after this group
        return task

    def _connection(self) -> Connection:
        if self._conn is None:
            self._conn = self._database.writing()
        return self._conn

    def _fail(self, group: _Group, error: BaseException) -> None:
        """Nothing of this group was committed: tell everybody, and stop for good when a sync failed."""
        log.error("a group was not committed", error=str(error), closures=len(group.tasks))
        if sync_failed(error):
            self._sync_failed = True
            self._shut(f"the disk failed to sync, so the store was closed; restart keepflow on a sound disk ({error})")
        if self._conn is not None:
            self._conn.invalidate()
            self._conn.close()
            self._conn = None
        group.reject(_reason_of_failure(error))

    def _shut(self, because: str) -> bool:
        with self._gate:
            was_open, self._open, self._closed_because = self._open, False, because
        return was_open

    def _refuse_rest(self) -> None:
        while not self._queue.empty():
            task = self._queue.get()
            if task is not None:
                task.future.set_exception(errors.Unavailable(self._closed_because, code="store-closed"))


class _Group:
    """The closures of one commit, with what each returned or raised."""

    def __init__(self, first: _Task) -> None:
        self.tasks = [first]
        self._callbacks: list[Callable[[], None]] = []

    def perform(self, tx: Tx) -> None:
        """Run the newest closure in a savepoint; one that raises leaves no trace and harms no other.

        Raises only what ended the whole transaction.
        """
        task, chain, tx.callbacks = self.tasks[-1], tx.chain, []
        driver: Any = tx.conn.connection.driver_connection  # a savepoint by SQLAlchemy costs 90 µs, by the driver 5
        driver.execute("SAVEPOINT closure")
        try:
            task.result = task.work(tx)
            self._callbacks += tx.callbacks
        except BaseException as error:
            if ends_transaction(error):
                raise
            driver.execute("ROLLBACK TO SAVEPOINT closure")
            task.error, tx.chain = error, chain
        driver.execute("RELEASE SAVEPOINT closure")

    def resolve(self) -> None:
        """Tell everybody how it went; the commit is on the disk."""
        for task in self.tasks:
            if task.error is None:
                task.future.set_result(task.result)
            else:
                task.future.set_exception(translate(task.error))
        for callback in self._callbacks:
            try:
                callback()
            except Exception:
                log.exception("a callback after a commit failed")

    def reject(self, error: BaseException) -> None:
        """Tell everybody that nothing was committed."""
        for task in self.tasks:
            task.future.set_exception(error if task.error is None else translate(task.error))


def sync_failed(error: BaseException) -> bool:
    """Say whether an error means that the disk refused to sync."""
    return _sqlite_code(error) in _FSYNC_FAILED


def ends_transaction(error: BaseException) -> bool:
    """Say whether an error of a closure ended the whole transaction, not only the statement that met it."""
    code = _sqlite_code(error)
    lost = isinstance(error, DatabaseError) and error.connection_invalidated
    return lost or (code is not None and (code & 0xFF) in _DISK_TROUBLE)


def translate(error: BaseException) -> BaseException:
    """Turn trouble of the disk into OutOfSpace, or Unavailable when it may not be retried; all else stays as it is."""
    code, origin = _sqlite_code(error), _origin(error)
    if code in _FSYNC_FAILED:
        return errors.Unavailable(f"the disk failed to sync: {origin}", code="store-closed")
    in_trouble = code is not None and (code & 0xFF) in _DISK_TROUBLE
    if in_trouble or getattr(origin, "sqlstate", None) == _PG_DISK_FULL:
        return errors.OutOfSpace(f"the disk of the database is full or fails ({origin}); nothing was stored")
    return error


def _reason_of_failure(error: BaseException) -> BaseException:
    """Return what everybody in a group is told that was not committed."""
    told = translate(error)
    if isinstance(told, errors.KeepflowError):
        return told
    return errors.Unavailable(f"the database did not commit: {_origin(error)}", code="database")


def _sqlite_code(error: BaseException) -> int | None:
    return getattr(_origin(error), "sqlite_errorcode", None)


def _origin(error: BaseException) -> BaseException:
    """Return the driver's own error, which SQLAlchemy wraps and statements for the driver itself raise bare."""
    return error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
