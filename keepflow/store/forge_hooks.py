"""Webhooks that keepflow keeps at forges: those that are wanted, and those that have still to be removed there."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, delete, select, update

from keepflow.store.tables import forge_hooks, projects

DUE = "due"  #: the forge was not asked yet, or is to be asked again
KEPT = "kept"  #: the forge has it as it should be
FAILED = "failed"  #: the forge would not, or was away; it is asked again
LEFT = "left"  #: it may be there still, and a person has to remove it


@dataclass(frozen=True, slots=True)
class ForgeHook:
    """One webhook at a forge; `token` and `given` are sealed (places `project/<name>/hook-token`, `…/hook-given`)."""

    id: int
    project_id: int
    project: str
    forge: str
    repo: str
    api: str
    ca_pem: str = field(repr=False)
    private: bool
    token: bytes = field(repr=False)
    wanted: bool
    state: str
    said: str
    remote_id: str | None
    given: bytes | None = field(repr=False)
    tries: int
    next_at: int | None
    changed_at: int


def every(conn: Connection) -> list[ForgeHook]:
    """List all of them, those of removed projects too, by project."""
    query = select(forge_hooks, projects.c.name.label("project")).join(projects)
    rows = conn.execute(query.order_by(projects.c.name, forge_hooks.c.id)).mappings()
    return [ForgeHook(**row) for row in rows]


def of_project(conn: Connection, project_id: int) -> list[ForgeHook]:
    """List those of one project, the wanted one first."""
    found = [hook for hook in every(conn) if hook.project_id == project_id]
    return sorted(found, key=lambda hook: not hook.wanted)


def add(conn: Connection, project_id: int, now: int, **columns: Any) -> None:
    """Want one that the forge was not asked for yet."""
    values = {"project_id": project_id, "state": DUE, "next_at": now, "changed_at": now, **columns}
    conn.execute(forge_hooks.insert().values(**values))


def change(conn: Connection, hook_id: int, now: int, **columns: Any) -> None:
    """Set columns of one."""
    conn.execute(update(forge_hooks).where(forge_hooks.c.id == hook_id).values(changed_at=now, **columns))


def settle(conn: Connection, hook: ForgeHook, now: int, **columns: Any) -> bool:
    """Write down what a forge said, unless it was changed since it was read; say whether it was not."""
    mine = (forge_hooks.c.id == hook.id, forge_hooks.c.changed_at == hook.changed_at)
    return conn.execute(update(forge_hooks).where(*mine).values(changed_at=now, **columns)).rowcount == 1


def drop(conn: Connection, hook_id: int) -> None:
    """Forget one that is gone at its forge, or left to a person."""
    conn.execute(delete(forge_hooks).where(forge_hooks.c.id == hook_id))
