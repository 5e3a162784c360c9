"""Queries of releases: what runs produced to be run elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, RowMapping, insert, select

from keepflow.core import deploys
from keepflow.core.flows import Container
from keepflow.core.releases import Release
from keepflow.store.tables import releases


@dataclass(frozen=True, slots=True)
class StoredRelease:
    """A release with the run and commit it came from and the description frozen into it."""

    id: int
    project_id: int
    run_id: int
    release: Release
    reference: str
    sha: str
    container: Container
    created_at: int


def add(
    conn: Connection,
    *,
    project_id: int,
    run_id: int,
    release: Release,
    reference: str,
    sha: str,
    container: Container,
    now: int,
) -> int:
    """Add a release of a run; the same image said twice by one run is one release."""
    key = (
        (releases.c.run_id == run_id)
        & (releases.c.origin == release.origin)
        & (releases.c.image_id == release.image_id)
        & (releases.c.repository == release.repository)
    )
    found = conn.execute(select(releases.c.id).where(key)).scalar()
    if found is not None:
        return int(found)
    row: dict[str, Any] = {
        "project_id": project_id,
        "run_id": run_id,
        "origin": release.origin,
        "image_id": release.image_id,
        "repository": release.repository,
        "digest": release.digest,
        "reference": reference,
        "sha": sha,
        "container": deploys.to_json(container),
        "created_at": now,
    }
    return int(conn.execute(insert(releases).values(**row).returning(releases.c.id)).scalar_one())


def by_id(conn: Connection, release_id: int) -> StoredRelease:
    """Return one release; raises NoResultFound for an id that never was."""
    return _stored(conn.execute(select(releases).where(releases.c.id == release_id)).mappings().one())


def of_run(conn: Connection, run_id: int) -> list[StoredRelease]:
    """List what a run produced, newest first."""
    query = select(releases).where(releases.c.run_id == run_id).order_by(releases.c.id.desc())
    return [_stored(row) for row in conn.execute(query).mappings()]


def by_digest(conn: Connection, project_id: int, digest: str) -> StoredRelease | None:
    """Return the newest registry release of a project with this digest, or None."""
    query = select(releases).where(
        releases.c.project_id == project_id, releases.c.digest == digest, releases.c.origin == "registry"
    )
    row = conn.execute(query.order_by(releases.c.id.desc()).limit(1)).mappings().first()
    return _stored(row) if row else None


def by_identity(conn: Connection, project_id: int, identity: str) -> StoredRelease | None:
    """Return the newest release of a project with this digest or image id, or None."""
    same = (releases.c.digest == identity) | (releases.c.image_id == identity)
    query = select(releases).where(releases.c.project_id == project_id, same)
    row = conn.execute(query.order_by(releases.c.id.desc()).limit(1)).mappings().first()
    return _stored(row) if row else None


def choose(found: list[StoredRelease], hosts: tuple[str, ...]) -> StoredRelease | None:
    """Pick what a run's deploy to these hosts means: its newest registry release, else the newest their agent built."""
    pushed = next((stored for stored in found if stored.release.promotable), None)
    return pushed or next((stored for stored in found if {stored.release.local_agent} == set(hosts)), None)


def _stored(row: RowMapping) -> StoredRelease:
    release = Release(row["origin"], row["image_id"], row["repository"], row["digest"])
    return StoredRelease(
        row["id"],
        row["project_id"],
        row["run_id"],
        release,
        row["reference"],
        row["sha"],
        deploys.from_json(row["container"]),
        row["created_at"],
    )
