"""The database of one master: how it is opened, brought up to date, checked and locked."""

from __future__ import annotations

import fcntl
import functools
import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, DatabaseError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import NullPool, QueuePool

from keepflow import errors

#: Connections that read at the same time; more readers wait for one to come back.
_READERS = 24
_BUSY_MS = 5000
#: A SQLite below this can corrupt its file when two connections write or checkpoint at the same moment.
_SQLITE_SAFE = (3, 51, 3)
#: Pages in the WAL before a commit also carries them over. The commit that does waits for it, and everybody behind it:
#: with 2000 pages one hook in a hundred waited 12 ms, with 400 it is 4 ms, and as many are stored a second.
_CHECKPOINT_PAGES = 400
#: Any number will do, as long as every master on one PostgreSQL database asks for the same.
_ADVISORY_LOCK = 0x6B656570


class Database:
    """One database, by URL: `sqlite:///…/keepflow.db` or `postgresql+psycopg://…`; one object per process.

    Everything is read through `read`; the one writing connection is opened by `writing` and belongs to the `Writer`.
    """

    def __init__(self, url: str) -> None:
        try:
            self.url = make_url(url)
        except ArgumentError:
            raise errors.UsageError(
                "the database's address is none; write postgresql+psycopg://…", code="database"
            ) from None
        if self.url.drivername not in ("sqlite", "postgresql+psycopg"):
            raise errors.UsageError(f"{self.url!r}: write postgresql+psycopg://…, or leave it out", code="database")
        self.is_sqlite = self.url.drivername == "sqlite"
        if self.is_sqlite and not self.url.database:
            raise errors.UsageError(
                f"{url}: name a file, such as sqlite:////var/lib/keepflow/keepflow.db", code="database"
            )
        self._writing = _engine(self, readers=False)
        self._reading = _engine(self, readers=True)
        self._lock: int | Connection | None = None

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Open a read-only connection that sees one moment of the database; usable from any thread.

        Raises Unavailable when the database does not answer.
        """
        try:
            with self._reading.connect() as conn:
                yield conn
        except DatabaseError as error:
            if not isinstance(error.orig, sqlite3.OperationalError) and not error.connection_invalidated:
                raise
            raise errors.Unavailable(f"the database cannot be read: {error.orig}", code="database") from error
        except PoolTimeout as error:
            raise errors.Unavailable("too many readers of the database at once; try again", code="busy") from error

    def writing(self) -> Connection:
        """Open the writing connection; the caller is the only one who has it."""
        return self._writing.connect()

    def migrate(self) -> None:
        """Bring the schema up to this version; raises Unavailable `newer-schema` when the database is ahead of it."""
        from keepflow.store import migrations

        with self.writing() as conn:
            migrations.upgrade(conn)

    def check(self) -> tuple[str, ...]:
        """Look for damage and for settings that would lose commits; returns warnings for people.

        Raises Unavailable `damaged`: the database must not be used before it was restored.
        """
        if not self.is_sqlite:
            return ()
        with self.writing() as conn:
            _refuse_damage(conn, str(self.url.database))
            if conn.exec_driver_sql("PRAGMA synchronous").scalar() != 2:
                raise errors.Unavailable("SQLite does not honour synchronous=FULL on this system", code="unsafe-sync")
        if sqlite3.sqlite_version_info >= _SQLITE_SAFE:
            return ()
        return (
            f"SQLite {sqlite3.sqlite_version} has the WAL-reset race (fixed in 3.51.3); keepflow stays clear of it by "
            "writing from one connection only, so never open keepflow.db for writing with another program",
        )

    def lock(self) -> None:
        """Take the place of the one master of this database until `dispose`; raises Refused `second-master`."""
        if self._lock is not None:
            return
        self._lock = self._lock_file() if self.is_sqlite else self._lock_advisory()

    def dispose(self) -> None:
        """Close every connection and give the lock back."""
        if isinstance(self._lock, int):
            os.close(self._lock)
        elif self._lock is not None:
            self._lock.close()
        self._lock = None
        self._reading.dispose()
        self._writing.dispose()

    def _lock_file(self) -> int:
        path = Path(str(self.url.database)).absolute().parent / "lock"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise errors.Refused(f"another master already runs on {path.parent}", code="second-master") from None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        return descriptor

    def _lock_advisory(self) -> Connection:
        try:
            conn = self._writing.connect().execution_options(isolation_level="AUTOCOMMIT")
        except DatabaseError as error:
            raise errors.Unavailable(f"{self.url!r} cannot be reached: {error.orig}", code="database") from None
        if conn.execute(text("SELECT pg_try_advisory_lock(:key)"), {"key": _ADVISORY_LOCK}).scalar():
            return conn
        conn.close()
        raise errors.Refused(f"another master already runs on {self.url!r}", code="second-master")


#: A run's plan is written once and read for every report about one of its jobs: read texts of its size once only.
#: What is returned is shared, so nobody may change what a JSON column held.
_LARGE_JSON = 4096
_decoded_once = functools.lru_cache(maxsize=128)(json.loads)


def _decoded(text: str) -> Any:
    return _decoded_once(text) if len(text) > _LARGE_JSON else json.loads(text)


def _engine(database: Database, readers: bool) -> Engine:
    pool: dict[str, Any] = (
        {"poolclass": QueuePool, "pool_size": _READERS, "max_overflow": 0} if readers else {"poolclass": NullPool}
    )
    if not database.is_sqlite:
        read_only = {"options": "-c default_transaction_read_only=on"} if readers else {}
        return create_engine(
            database.url, connect_args=read_only, pool_pre_ping=readers, json_deserializer=_decoded, **pool
        )
    # isolation_level None: the driver begins nothing by itself, so that the "begin" event below decides
    arguments = {"isolation_level": None, "timeout": _BUSY_MS / 1000, "check_same_thread": False}
    engine = create_engine(database.url, connect_args=arguments, json_deserializer=_decoded, **pool)
    begin = "BEGIN" if readers else "BEGIN IMMEDIATE"

    @event.listens_for(engine, "connect")
    def settings(connection: sqlite3.Connection, _record: object) -> None:
        for pragma in _pragmas(readers):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def start(conn: Connection) -> None:
        conn.exec_driver_sql(begin)

    return engine


def _pragmas(readers: bool) -> tuple[str, ...]:
    shared = (f"busy_timeout={_BUSY_MS}", "foreign_keys=ON", "synchronous=FULL")
    if readers:
        return (*shared, "wal_autocheckpoint=0", "query_only=ON")
    return ("journal_mode=WAL", *shared, f"wal_autocheckpoint={_CHECKPOINT_PAGES}")


def _refuse_damage(conn: Connection, path: str) -> None:
    try:
        found = conn.exec_driver_sql("PRAGMA quick_check(1)").scalar()
    except DatabaseError as error:
        found = str(error.orig)
    if found != "ok":
        raise errors.Unavailable(
            f"{path} is damaged ({found}); stop here and put a backup in its place with `keepflow restore`",
            code="damaged",
        )
