"""What forges are told of runs: the word that is wanted, and the one that was taken."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, func, select, update

from keepflow.store.tables import statuses
from keepflow.store.upsert import insert


@dataclass(frozen=True, slots=True)
class Wanted:
    """One run whose forge is to be told."""

    run_id: int
    project_id: int
    wanted: str
    told: str
    tries: int
    said: str
    next_at: int | None


def want(conn: Connection, run_id: int, project_id: int, word: str, now: int) -> None:
    """Have a word told of a run; one that was told already is not told again."""
    fresh = insert(conn, statuses).values(
        run_id=run_id, project_id=project_id, wanted=word, told="", tries=0, said="", next_at=now
    )
    changed = {"wanted": word, "tries": 0, "said": "", "next_at": now}
    conn.execute(fresh.on_conflict_do_update(index_elements=["run_id"], set_=changed, where=statuses.c.wanted != word))


def of_run(conn: Connection, run_id: int) -> Wanted | None:
    """Return what is told of a run, None when nobody is."""
    row = conn.execute(select(statuses).where(statuses.c.run_id == run_id)).mappings().first()
    return Wanted(**row) if row else None


def due(conn: Connection, now: int, limit: int) -> list[Wanted]:
    """List what is to be told now, oldest run first."""
    query = select(statuses).where(statuses.c.next_at <= now).order_by(statuses.c.run_id).limit(limit)
    return [Wanted(**row) for row in conn.execute(query).mappings()]


def next_due(conn: Connection) -> int | None:
    """Return when something is to be told next."""
    return conn.execute(select(func.min(statuses.c.next_at))).scalar()


def ended(conn: Connection, one: Wanted, told: str, said: str) -> None:
    """Write down that nothing more is to be done about a word: it was told, or was given up."""
    mine = (statuses.c.run_id == one.run_id, statuses.c.wanted == one.wanted)
    conn.execute(update(statuses).where(*mine).values(told=told, said=said, next_at=None))
    conn.execute(
        update(statuses).where(statuses.c.run_id == one.run_id, statuses.c.wanted != one.wanted).values(told=told)
    )


def failed(conn: Connection, one: Wanted, said: str, next_at: int) -> None:
    """Write down that a try failed, and when the next one is."""
    mine = (statuses.c.run_id == one.run_id, statuses.c.wanted == one.wanted)
    conn.execute(update(statuses).where(*mine).values(said=said, tries=one.tries + 1, next_at=next_at))
