"""Numbers that only rise."""

from __future__ import annotations

from sqlalchemy import Connection, select

from keepflow.store.tables import counters
from keepflow.store.upsert import insert

FENCE = "fence"  #: names every attempt; one row for the whole master


def current(conn: Connection, name: str) -> int:
    """Return a counter's value; 0 before its first use."""
    return int(conn.execute(select(counters.c.value).where(counters.c.name == name)).scalar() or 0)


def raise_to(conn: Connection, name: str, value: int) -> None:
    """Raise a counter to at least this value."""
    statement = insert(conn, counters).values(name=name, value=value)
    higher = statement.on_conflict_do_update(
        index_elements=["name"], set_={"value": value}, where=counters.c.value < value
    )
    conn.execute(higher)


def next_value(conn: Connection, name: str, count: int = 1) -> int:
    """Take the next value of a counter, or the first of several, and return it; the first ever is 1."""
    statement = insert(conn, counters).values(name=name, value=count)
    statement = statement.on_conflict_do_update(index_elements=["name"], set_={"value": counters.c.value + count})
    return int(conn.execute(statement.returning(counters.c.value)).scalar_one()) - count + 1
