"""Closures whose one statement is a transaction of its own: as durable and as separate as all others."""

from __future__ import annotations

import threading
from functools import partial

import pytest

from keepflow.core.events import Event, EventKind, Parsed
from keepflow.store import deliveries, projects, settings
from keepflow.store.database import Database
from keepflow.store.deliveries import NewDelivery
from keepflow.store.writer import Tx, Writer

EVENT = Event(EventKind.PUSH, "refs/heads/dev", "1" * 40)


@pytest.fixture
def project(writer: Writer) -> int:
    return writer.call(lambda tx: projects.add(tx.conn, 1, "app", "https://example.org/app.git", "github"))


def _new(project: int, delivery: str) -> NewDelivery:
    return NewDelivery(project, delivery, "github", "push", {}, b"body", Parsed(EVENT), None, 5)


def _add(tx: Tx, project: int, ids: str) -> list[int | None]:
    return deliveries.add_all(tx.conn, [_new(project, name) for name in ids])


def _stored(database: Database, project: int) -> dict[str, int]:
    with database.read() as conn:
        return {one.delivery: one.id for one in deliveries.page(conn, project, None, 100)}


def test_it_is_committed_when_its_future_is_resolved(database: Database, writer: Writer, project: int) -> None:
    ids = writer.submit(partial(_add, project=project, ids="abc"), alone=True).result(10)
    assert dict(zip("abc", ids, strict=True)) == _stored(database, project)
    assert None not in ids


def test_what_was_there_is_left_out_and_keeps_its_place(database: Database, writer: Writer, project: int) -> None:
    first = writer.submit(partial(_add, project=project, ids="b"), alone=True).result(10)
    ids = writer.submit(partial(_add, project=project, ids="abac"), alone=True).result(10)
    assert (ids[1], ids[2]) == (None, None)
    assert ids[0] is not None
    assert ids[3] is not None
    assert _stored(database, project) == {"b": first[0], "a": ids[0], "c": ids[3]}
    assert writer.submit(partial(_add, project=project, ids="cba"), alone=True).result(10) == [None] * 3
    writer.call(lambda tx: settings.put(tx.conn, "after", 1))


def test_looking_something_up_afterwards_leaves_no_transaction_open(
    database: Database, writer: Writer, project: int
) -> None:
    def add_and_look(tx: Tx) -> str | None:
        _add(tx, project, "x")
        found = deliveries.by_delivery(tx.conn, project, "x")
        return found.delivery if found else None

    assert writer.submit(add_and_look, alone=True).result(10) == "x"
    assert "x" in _stored(database, project)
    writer.call(lambda tx: settings.put(tx.conn, "after", 1))
    with database.read() as conn:
        assert settings.get(conn, "after") == 1


def test_one_that_fails_harms_no_other(database: Database, writer: Writer, project: int) -> None:
    def broken(tx: Tx) -> None:
        deliveries.add_all(tx.conn, [_new(project + 999, "orphan")])  # no such project: the database refuses

    with pytest.raises(Exception, match=r"(?i)foreign key"):
        writer.submit(broken, alone=True).result(10)
    writer.submit(partial(_add, project=project, ids="a"), alone=True).result(10)
    assert set(_stored(database, project)) == {"a"}


def test_callbacks_come_after_the_commit(database: Database, writer: Writer, project: int) -> None:
    seen: list[int] = []
    done = threading.Event()

    def add(tx: Tx) -> None:
        _add(tx, project, "a")
        tx.after_commit(lambda: (seen.append(len(_stored(database, project))), done.set()))  # type: ignore[func-returns-value]  # two calls in one

    writer.submit(add, alone=True).result(10)
    assert done.wait(10)
    assert seen == [1]


def test_among_others_it_is_part_of_their_group(database: Database, project: int) -> None:
    held = threading.Event()
    several = Writer(database, window=30)
    several.start()
    first = several.submit(lambda _: held.wait(10))
    middle = several.submit(partial(_add, project=project, ids="ab"), alone=True)
    last = several.submit(lambda tx: settings.put(tx.conn, "last", 1))
    held.set()
    for future in (first, middle, last):
        future.result(10)
    assert set(_stored(database, project)) == {"a", "b"}
    several.close()
