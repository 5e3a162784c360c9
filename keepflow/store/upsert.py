"""INSERT … ON CONFLICT, which both databases speak but SQLAlchemy spells per database."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Table
from sqlalchemy.dialects import postgresql, sqlite


def insert(conn: Connection, table: Table) -> Any:
    """Return the INSERT of the connected database, which has `on_conflict_do_nothing` and `on_conflict_do_update`."""
    return postgresql.insert(table) if conn.dialect.name == "postgresql" else sqlite.insert(table)
