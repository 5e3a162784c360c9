"""Projects: the repositories the master knows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, RowMapping, bindparam, select, update

from keepflow.store.tables import projects


@dataclass(frozen=True, slots=True)
class Project:
    """One repository. `hook_secret` and `git_token` are sealed (places `project/<name>/hook-secret`, `…/git-token`).

    `served` is the fence of the job of it that was given away last.
    """

    id: int
    name: str
    repo: str
    forge: str
    flow_file: str
    images: tuple[str, ...]
    submodules: tuple[str, ...]  #: addresses, or what they begin with, that submodules may come from
    hook_secret: bytes | None = field(repr=False)
    hook_secret_made: bool  #: by keepflow, because the server file names none
    git_token: bytes | None = field(repr=False)
    status: dict[str, Any] | None = field(repr=False)  #: how its forge is told of runs; the token in it is sealed
    git_ssh_key_file: str | None
    git_known_hosts_file: str | None
    next_number: int
    served: int
    managed: bool
    paused_by: str | None
    paused_why: str | None
    paused_at: int | None
    removed_at: int | None
    created_at: int


def _project(row: RowMapping) -> Project:
    return Project(**{**row, "images": tuple(row["images"]), "submodules": tuple(row["submodules"])})


#: Built once: these are asked for every job, and building costs more than asking.
_BY_ID = select(projects).where(projects.c.id == bindparam("id"))
_SERVE = update(projects).where(projects.c.id == bindparam("project")).values(served=bindparam("fence"))


def hook_secret_place(name: str) -> str:
    """Return the place a project's hook secret is sealed for."""
    return f"project/{name}/hook-secret"


def git_token_place(name: str) -> str:
    """Return the place a project's git token is sealed for."""
    return f"project/{name}/git-token"


def hook_token_place(name: str) -> str:
    """Return the place the token is sealed for by which a project's webhook is kept at its forge."""
    return f"project/{name}/hook-token"


def hook_given_place(name: str) -> str:
    """Return the place that is sealed for what a project's webhook was given at its forge."""
    return f"project/{name}/hook-given"


def status_token_place(name: str) -> str:
    """Return the place the token is sealed for by which a project's forge is told of runs."""
    return f"project/{name}/status-token"


def by_id(conn: Connection, project_id: int) -> Project:
    """Return a project by its row id, removed ones too; it must exist."""
    return _project(conn.execute(_BY_ID, {"id": project_id}).mappings().one())


def serve(conn: Connection, project_id: int, fence: int) -> None:
    """Remember that a job of this project was given away, under this fence."""
    conn.execute(_SERVE, {"project": project_id, "fence": fence})


def by_name(conn: Connection, name: str) -> Project | None:
    """Return the project of this name, unless it was removed."""
    query = select(projects).where(projects.c.name == name, projects.c.removed_at.is_(None))
    row = conn.execute(query).mappings().first()
    return _project(row) if row else None


def every(conn: Connection) -> list[Project]:
    """List the projects that were not removed, by name."""
    query = select(projects).where(projects.c.removed_at.is_(None)).order_by(projects.c.name)
    return [_project(row) for row in conn.execute(query).mappings()]


def add(conn: Connection, now: int, name: str, repo: str, forge: str, **columns: Any) -> int:
    """Add a project and return its id; a removed one of the same name comes back with its history and numbers."""
    values = {"repo": repo, "forge": forge, **columns}
    revived = update(projects).where(projects.c.name == name, projects.c.removed_at.is_not(None))
    row = conn.execute(revived.values(removed_at=None, **values).returning(projects.c.id)).first()
    if row is not None:
        return int(row.id)
    query = projects.insert().values(name=name, created_at=now, **values)
    return int(conn.execute(query.returning(projects.c.id)).scalar_one())


def change(conn: Connection, project_id: int, **columns: Any) -> None:
    """Set columns of a project."""
    conn.execute(update(projects).where(projects.c.id == project_id).values(**columns))


def remove(conn: Connection, project_id: int, now: int) -> None:
    """Take a project off every page; its runs and numbers stay."""
    change(conn, project_id, removed_at=now)


def next_number(conn: Connection, project_id: int, count: int = 1) -> int:
    """Take the next number of a run, or the first of several; a number that was taken is never given again."""
    raised = update(projects).where(projects.c.id == project_id).values(next_number=projects.c.next_number + count)
    return int(conn.execute(raised.returning(projects.c.next_number)).scalar_one()) - count


def coming_number(conn: Connection, project_id: int) -> int:
    """Return the number that `next_number` gives next."""
    return int(conn.execute(select(projects.c.next_number).where(projects.c.id == project_id)).scalar_one())
