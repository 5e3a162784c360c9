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


def next_value(conn: Connection, name: str) -> int:
    """Raise a counter by one and return its new value; the first is 1."""
    statement = insert(conn, counters).values(name=name, value=1)
    statement = statement.on_conflict_do_update(index_elements=["name"], set_={"value": counters.c.value + 1})
    return int(conn.execute(statement.returning(counters.c.value)).scalar_one())
