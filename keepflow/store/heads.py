"""Heads of branches and tags that were taken: what the reconcile sweep compares with the remote."""

from __future__ import annotations

from sqlalchemy import Connection, delete, select

from keepflow.store.tables import heads
from keepflow.store.upsert import insert

#: A row under this "ref" says that the project's first sweep was made; what was there before it is not built.
_BASELINE = ""
#: And under this one the highest number of a pull request that was seen at the remote: older ones are no news.
_PULLS = "pulls"


def of_project(conn: Connection, project_id: int) -> dict[str, str]:
    """Return the commit last taken per ref."""
    query = select(heads.c.ref, heads.c.sha).where(
        heads.c.project_id == project_id, heads.c.ref.not_in((_BASELINE, _PULLS))
    )
    return {row.ref: row.sha for row in conn.execute(query)}


def get(conn: Connection, project_id: int, ref: str) -> str | None:
    """Return the commit last taken of one ref."""
    return conn.execute(select(heads.c.sha).where(heads.c.project_id == project_id, heads.c.ref == ref)).scalar()


def put(conn: Connection, project_id: int, ref: str, sha: str, now: int) -> None:
    """Remember that a commit of a ref was taken."""
    statement = insert(conn, heads).values(project_id=project_id, ref=ref, sha=sha, seen_at=now)
    changed = {"sha": statement.excluded.sha, "seen_at": statement.excluded.seen_at}
    conn.execute(statement.on_conflict_do_update(index_elements=["project_id", "ref"], set_=changed))


def drop(conn: Connection, project_id: int, ref: str) -> None:
    """Forget a ref that is gone from the remote."""
    conn.execute(delete(heads).where(heads.c.project_id == project_id, heads.c.ref == ref))


def has_baseline(conn: Connection, project_id: int) -> bool:
    """Say whether the first sweep of a project was made."""
    return get(conn, project_id, _BASELINE) is not None


def mark_baseline(conn: Connection, project_id: int, now: int) -> None:
    """Remember that the first sweep of a project was made."""
    put(conn, project_id, _BASELINE, "", now)


def newest_pull(conn: Connection, project_id: int) -> int | None:
    """Return the highest number of a pull request that a sweep saw; None before the first one looked."""
    found = get(conn, project_id, _PULLS)
    return int(found) if found is not None else None


def saw_pulls(conn: Connection, project_id: int, number: int, now: int) -> None:
    """Remember the highest number of a pull request that there is."""
    put(conn, project_id, _PULLS, str(number), now)
