"""What Alembic runs around every revision: the connection is handed in, the transaction belongs to the caller."""

from __future__ import annotations

from alembic import context

from keepflow.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,  # SQLite changes a column by copying its table
    transactional_ddl=False,  # the caller's transaction holds all of it
)
context.run_migrations()
