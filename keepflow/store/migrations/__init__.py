"""The schema over time: one Alembic revision per change of `tables`, run when the master starts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, inspect, text

from keepflow import errors

if TYPE_CHECKING:
    from alembic.config import Config

#: The newest revision; when the database is there already, Alembic need not even be imported.
HEAD = "0001"


def upgrade(conn: Connection) -> None:
    """Bring the schema up to `HEAD` in one transaction; raises Unavailable `newer-schema` when it is ahead of it."""
    with conn.begin():
        if current(conn) == HEAD:
            return
    from alembic import command
    from alembic.util import CommandError

    with conn.begin():
        try:
            command.upgrade(config(conn), "head")
        except CommandError as error:
            raise errors.Unavailable(
                f"the database has schema {current(conn)}, made by a newer keepflow; this one knows {HEAD}: "
                "upgrade keepflow, or restore a backup of the older version",
                code="newer-schema",
            ) from error


def current(conn: Connection) -> str | None:
    """Return the revision the database has, or None when it is empty."""
    if not inspect(conn).has_table("alembic_version"):
        return None
    return conn.execute(text("SELECT version_num FROM alembic_version")).scalar()


def config(conn: Connection) -> Config:
    """Return Alembic's configuration for an open connection; there is no ini file."""
    from alembic.config import Config

    made = Config(attributes={"connection": conn})
    made.set_main_option("script_location", str(Path(__file__).parent))
    made.set_main_option("path_separator", "os")
    return made
