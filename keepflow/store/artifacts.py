"""Artifacts: which files an attempt kept, under which path and digest; the bytes are files, never rows."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass, fields

from sqlalchemy import Connection, RowMapping, func, insert, select, update

from keepflow.store.tables import artifacts, attempts, jobs


@dataclass(frozen=True, slots=True)
class Artifact:
    """One kept file; `removed_at` says when its bytes were let go of."""

    id: int
    attempt_id: int
    path: str
    size: int
    sha256: str
    executable: bool
    created_at: int
    expires_at: int | None
    removed_at: int | None


@dataclass(frozen=True, slots=True)
class NewArtifact:
    """A file as it is to be kept."""

    path: str
    size: int
    sha256: str
    executable: bool
    expires_at: int | None


def put(conn: Connection, attempt_id: int, file: NewArtifact, now: int) -> int:
    """Write a file down and return its id; the same path of an attempt again is the newer file."""
    older = (artifacts.c.attempt_id == attempt_id) & (artifacts.c.path == file.path)
    conn.execute(update(artifacts).where(older & artifacts.c.removed_at.is_(None)).values(removed_at=now))
    made = insert(artifacts).values(attempt_id=attempt_id, created_at=now, **asdict(file)).returning(artifacts.c.id)
    return int(conn.execute(made).scalar_one())


def by_id(conn: Connection, artifact_id: int) -> Artifact | None:
    """Return one file."""
    row = conn.execute(select(artifacts).where(artifacts.c.id == artifact_id)).mappings().first()
    return _artifact(row) if row else None


def of_run(conn: Connection, run_id: int) -> list[tuple[str, int, Artifact]]:
    """List (job's key, number of the attempt, file) of a run, in the order they were kept; let go ones too."""
    query = (
        select(jobs.c.key, attempts.c.n, artifacts)
        .join_from(artifacts, attempts, artifacts.c.attempt_id == attempts.c.id)
        .join(jobs, attempts.c.job_id == jobs.c.id)
        .where(jobs.c.run_id == run_id)
        .order_by(artifacts.c.id)
    )
    return [(row["key"], row["n"], _artifact(row)) for row in conn.execute(query).mappings()]


def held_by(conn: Connection, attempt_id: int) -> tuple[int, int]:
    """Return how many files an attempt has, and their bytes."""
    query = select(func.count(), func.coalesce(func.sum(artifacts.c.size), 0))
    row = conn.execute(query.where(artifacts.c.attempt_id == attempt_id, artifacts.c.removed_at.is_(None))).one()
    return int(row[0]), int(row[1])


def expired(conn: Connection, now: int, limit: int = 500) -> list[Artifact]:
    """List files whose time is over and whose bytes are still there."""
    query = select(artifacts).where(artifacts.c.removed_at.is_(None), artifacts.c.expires_at <= now)
    return [_artifact(row) for row in conn.execute(query.limit(limit)).mappings()]


def let_go(conn: Connection, ids: Collection[int], now: int) -> None:
    """Say that the bytes of these files are no longer kept."""
    conn.execute(update(artifacts).where(artifacts.c.id.in_(ids)).values(removed_at=now))


def needed(conn: Connection, digests: Collection[str]) -> set[str]:
    """Return which of these digests some kept file still has."""
    query = select(artifacts.c.sha256).where(artifacts.c.sha256.in_(digests), artifacts.c.removed_at.is_(None))
    return set(conn.execute(query.distinct()).scalars())


def _artifact(row: RowMapping) -> Artifact:
    return Artifact(**{one.name: row[one.name] for one in fields(Artifact)})
