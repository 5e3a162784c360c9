"""What the writer promises: all or nothing per closure, one sync for many, nothing acknowledged that is not there."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from pathlib import Path

import pytest
from sqlalchemy import Connection, event, text

from keepflow import errors
from keepflow.store import counters, settings
from keepflow.store.database import Database
from keepflow.store.writer import Tx, Writer


def test_what_a_closure_returns_comes_back_after_the_commit(database: Database, writer: Writer) -> None:
    assert writer.call(lambda tx: counters.next_value(tx.conn, "fence")) == 1
    assert writer.call(lambda tx: counters.next_value(tx.conn, "fence")) == 2
    with database.read() as conn:
        assert conn.execute(text("SELECT value FROM counters")).scalar() == 2


def test_a_failing_closure_harms_no_other_of_its_group(database: Database) -> None:
    held, commits = threading.Event(), _count_commits(database)
    writer = Writer(database, window=30)  # one group, however slow this machine is now
    writer.start()

    def wait_for_company(_: Tx) -> None:
        held.wait(10)

    def fail(tx: Tx) -> None:
        settings.put(tx.conn, "never", 1)
        raise ValueError("on purpose")

    def break_a_rule(tx: Tx) -> None:
        tx.conn.execute(text("INSERT INTO counters (name) VALUES ('x')"))

    first = writer.submit(wait_for_company)
    good = [writer.submit(lambda tx, n=n: settings.put(tx.conn, f"good{n}", n)) for n in range(3)]
    bad, ruled_out = writer.submit(fail), writer.submit(break_a_rule)
    last = writer.submit(lambda tx: settings.put(tx.conn, "last", 1))
    held.set()
    for future in (first, *good, last):
        future.result(10)
    with pytest.raises(ValueError, match="on purpose"):
        bad.result(10)
    assert ruled_out.exception(10) is not None
    with database.read() as conn:
        assert settings.get(conn, "never") is None
        assert [settings.get(conn, f"good{n}") for n in range(3)] == [0, 1, 2]
        assert settings.get(conn, "last") == 1
    assert commits() == 1
    writer.close()


def test_callbacks_come_after_the_commit_and_never_for_a_closure_that_failed(
    database: Database, writer: Writer
) -> None:
    seen: list[object] = []

    def look(name: str) -> None:
        with database.read() as conn:
            seen.append((name, settings.get(conn, name)))

    def good(tx: Tx) -> None:
        settings.put(tx.conn, "good", 1)
        tx.after_commit(lambda: look("good"))

    def bad(tx: Tx) -> None:
        settings.put(tx.conn, "bad", 1)
        tx.after_commit(lambda: look("bad"))
        raise ValueError

    writer.call(good)
    with pytest.raises(ValueError):  # noqa: PT011 - the closure's own, bare error
        writer.call(bad)
    writer.call(lambda _: None)
    assert seen == [("good", 1)]


def test_a_failing_callback_harms_nobody(writer: Writer) -> None:
    writer.call(lambda tx: tx.after_commit(lambda: 1 / 0))
    assert writer.call(lambda _: 7) == 7


def test_thirty_two_threads_lose_no_update(database: Database, writer: Writer) -> None:
    def work() -> None:
        for _ in range(50):
            writer.call(lambda tx: counters.next_value(tx.conn, "fence"))

    threads = [threading.Thread(target=work) for _ in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    with database.read() as conn:
        assert conn.execute(text("SELECT value FROM counters")).scalar() == 32 * 50


def test_closures_that_wait_share_commits(database: Database, writer: Writer) -> None:
    commits = _count_commits(database)
    held = threading.Event()
    writer.submit(lambda _: held.wait(10))
    futures = [writer.submit(lambda tx: counters.next_value(tx.conn, "n")) for _ in range(200)]
    held.set()
    done, _ = wait(futures, 10)
    assert len(done) == 200
    assert commits() < 100


def test_a_group_that_does_not_commit_is_acknowledged_to_nobody(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/keepflow.db")
    database.migrate()
    writer = Writer(database, window=30)  # one group, however slow this machine is now
    writer.start()
    pages = writer.call(lambda tx: tx.conn.exec_driver_sql("PRAGMA page_count").scalar())
    writer.call(lambda tx: tx.conn.exec_driver_sql(f"PRAGMA max_page_count={pages + 20}").scalar())
    held = threading.Event()
    first: Future[object] = writer.submit(lambda _: held.wait(10))
    small = writer.submit(lambda tx: settings.put(tx.conn, "small", 1))
    large = writer.submit(lambda tx: settings.put(tx.conn, "large", "x" * 1_000_000))
    held.set()
    for future in (first, small, large):
        with pytest.raises(errors.OutOfSpace):
            future.result(10)
    writer.call(lambda tx: tx.conn.exec_driver_sql("PRAGMA max_page_count=1000000").scalar())
    writer.call(lambda tx: settings.put(tx.conn, "small", 2))  # it goes on when there is room
    with database.read() as conn:
        assert settings.get(conn, "small") == 2
        assert settings.get(conn, "large") is None
    writer.close()
    database.dispose()


def test_a_failed_sync_closes_the_store_for_good(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/keepflow.db")
    database.migrate()
    writer = Writer(database)
    writer.start()
    armed = threading.Event()

    @event.listens_for(database._writing, "commit")  # the driver cannot be made to fail a sync; SQLAlchemy's event can
    def fail_once(_: Connection) -> None:
        if armed.is_set():
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
            raise error

    armed.set()
    with pytest.raises(errors.Unavailable, match="sync") as caught:
        writer.call(lambda tx: settings.put(tx.conn, "lost", 1))
    assert caught.value.code == "store-closed"
    armed.clear()
    with pytest.raises(errors.Unavailable) as caught:
        writer.call(lambda tx: settings.put(tx.conn, "later", 1))
    assert caught.value.code == "store-closed"
    assert not writer.alive
    writer.close()
    database.dispose()


def test_a_closed_writer_finishes_what_it_took_and_refuses_the_rest(database: Database) -> None:
    writer = Writer(database)
    writer.start()
    taken = [writer.submit(lambda tx: counters.next_value(tx.conn, "n")) for _ in range(100)]
    writer.close(10)
    assert [future.result(0) for future in taken] == list(range(1, 101))
    with pytest.raises(errors.Unavailable) as caught:
        writer.submit(lambda _: None)
    assert caught.value.code == "store-closed"


def test_waiting_for_another_closure_inside_a_closure_is_a_plain_error(writer: Writer) -> None:
    with pytest.raises(RuntimeError, match="must use its Tx"):
        writer.call(lambda _: writer.call(lambda _: None))


def _count_commits(database: Database) -> Callable[[], int]:
    count = [0]

    @event.listens_for(database._writing, "commit")  # the only place where all commits can be seen
    def counted(_: Connection) -> None:
        count[0] += 1

    return lambda: count[0]
