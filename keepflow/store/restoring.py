"""What a restored database must never do: give out a number that was given out after its backup was made."""

from __future__ import annotations

from sqlalchemy import Connection, update

from keepflow.store import counters, settings
from keepflow.store.tables import projects

#: Settings key: {"made_at", "at"} until the first start after a restore.
RESTORED = "restored"
#: What nobody can have given out since the backup.
FENCES, BUILDS = 1_000_000, 1_000


def skip_numbers(conn: Connection, made_at: int, now: int) -> None:
    """Raise every counter, and leave word for the first start."""
    counters.raise_to(conn, counters.FENCE, counters.current(conn, counters.FENCE) + FENCES)
    conn.execute(update(projects).values(next_number=projects.c.next_number + BUILDS))
    settings.put(conn, RESTORED, {"made_at": made_at, "at": now})
