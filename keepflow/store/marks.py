"""Queries of marks: what testers said of deployments; rows are only ever added."""

from __future__ import annotations

from sqlalchemy import Connection, RowMapping, insert, select

from keepflow.core.marks import Mark, Verdict
from keepflow.store.tables import marks


def add(conn: Connection, environment_id: int, mark: Mark) -> None:
    """Add what somebody said."""
    conn.execute(
        insert(marks).values(
            environment_id=environment_id,
            deployment_id=mark.deployment,
            identity=mark.identity,
            person=mark.person,
            verdict=mark.verdict.value,
            note=mark.note,
            at=mark.at,
        )
    )


def of_identity(conn: Connection, environment_id: int, identity: str) -> tuple[Mark, ...]:
    """List every mark of one image in an environment, oldest first."""
    query = select(marks).where(marks.c.environment_id == environment_id, marks.c.identity == identity)
    return tuple(_mark(row) for row in conn.execute(query.order_by(marks.c.id)).mappings())


def _mark(row: RowMapping) -> Mark:
    verdict = Verdict(row["verdict"])
    return Mark(row["person"], verdict, row["deployment_id"], row["identity"], row["note"], row["at"])
