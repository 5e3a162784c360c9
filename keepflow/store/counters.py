"""Numbers that only rise."""

from __future__ import annotations

from sqlalchemy import Connection

from keepflow.store.tables import counters
from keepflow.store.upsert import insert

FENCE = "fence"  #: names every attempt; one row for the whole master


def next_value(conn: Connection, name: str) -> int:
    """Raise a counter by one and return its new value; the first is 1."""
    statement = insert(conn, counters).values(name=name, value=1)
    statement = statement.on_conflict_do_update(index_elements=["name"], set_={"value": counters.c.value + 1})
    return int(conn.execute(statement.returning(counters.c.value)).scalar_one())
