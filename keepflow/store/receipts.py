"""Queries of receipts: signed statements about the digest of a release. They are added, never changed or deleted."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

from sqlalchemy import Connection, insert, select

from keepflow.store.tables import receipts

Kind = Literal["provenance", "test-result"]


@dataclass(frozen=True, slots=True)
class StoredReceipt:
    """One receipt. What the columns say is for people; what counts is what the envelope says."""

    id: int
    project_id: int
    release_id: int
    repository: str
    digest: str
    kind: Kind
    passed: bool | None
    made_by: str
    by_person: bool
    witness: str | None
    envelope: dict[str, Any]
    at: int


def add(
    conn: Connection,
    *,
    project_id: int,
    release_id: int,
    repository: str,
    digest: str,
    kind: Kind,
    made_by: str,
    envelope: dict[str, Any],
    now: int,
    passed: bool | None = None,
    by_person: bool = False,
    witness: str | None = None,
) -> int:
    """Add a receipt and return its id."""
    row = {
        "project_id": project_id,
        "release_id": release_id,
        "repository": repository,
        "digest": digest,
        "kind": kind,
        "passed": passed,
        "made_by": made_by[:200],
        "by_person": by_person,
        "witness": witness,
        "envelope": envelope,
        "at": now,
    }
    return int(conn.execute(insert(receipts).values(**row).returning(receipts.c.id)).scalar_one())


def of_digest(conn: Connection, project_id: int, digest: str) -> list[StoredReceipt]:
    """List what is known of a digest in a project, oldest first."""
    query = select(receipts).where(receipts.c.project_id == project_id, receipts.c.digest == digest)
    rows = conn.execute(query.order_by(receipts.c.id)).mappings()
    return [StoredReceipt(**{field.name: row[field.name] for field in fields(StoredReceipt)}) for row in rows]


def has_provenance(conn: Connection, release_id: int) -> bool:
    """Say whether a release has the receipt of its building."""
    query = select(receipts.c.id).where(receipts.c.release_id == release_id, receipts.c.kind == "provenance")
    return conn.execute(query.limit(1)).first() is not None
