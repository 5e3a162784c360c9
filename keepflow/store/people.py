"""Users, groups and roles."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, Row, delete, insert, or_, select, update

from keepflow.store.tables import group_members, groups, projects, roles, users


@dataclass(frozen=True, slots=True)
class User:
    """One person. `id` 0 is nobody in the table: the command line on the master's own machine."""

    id: int
    name: str
    email: str = ""
    admin: bool = False
    disabled_at: int | None = None
    has_password: bool = False
    created_at: int = 0


@dataclass(frozen=True, slots=True)
class Group:
    """A named list of people; `managed` groups belong to the server file."""

    name: str
    managed: bool
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RoleGrant:
    """One role in one project, held by a user or by a group."""

    project: str
    role: str
    user: str | None
    group: str | None


def _user(row: Row[tuple[object, ...]]) -> User:
    data = row._mapping
    return User(
        id=data["id"],
        name=data["name"],
        email=data["email"],
        admin=data["admin"],
        disabled_at=data["disabled_at"],
        has_password=data["password_hash"] is not None,
        created_at=data["created_at"],
    )


def user_by_id(conn: Connection, user_id: int) -> User | None:
    """Return one user, disabled or not."""
    row = conn.execute(select(users).where(users.c.id == user_id)).first()
    return _user(row) if row else None


def user_by_name(conn: Connection, name: str) -> User | None:
    """Return one user, disabled or not."""
    row = conn.execute(select(users).where(users.c.name == name)).first()
    return _user(row) if row else None


def all_users(conn: Connection) -> list[User]:
    """Return every user by name."""
    return [_user(row) for row in conn.execute(select(users).order_by(users.c.name))]


def any_user(conn: Connection) -> bool:
    """Say whether there is anybody at all."""
    return conn.execute(select(users.c.id).limit(1)).first() is not None


def password_hash(conn: Connection, user_id: int) -> str | None:
    """Return the stored argon2id hash of a user, or None when no password was ever set."""
    return conn.execute(select(users.c.password_hash).where(users.c.id == user_id)).scalar_one_or_none()


def add_user(conn: Connection, name: str, email: str, admin: bool, now: int) -> int:
    """Add a user without a password and return the id; the name must be free."""
    result = conn.execute(insert(users).values(name=name, email=email, admin=admin, created_at=now))
    return int(result.inserted_primary_key[0])  # type: ignore[index]  # a single-row insert always has its key


def set_password(conn: Connection, user_id: int, hashed: str) -> None:
    """Store a new password hash."""
    conn.execute(update(users).where(users.c.id == user_id).values(password_hash=hashed))


def set_disabled(conn: Connection, user_id: int, at: int | None) -> None:
    """Disable a user (with the time) or enable one again (None)."""
    conn.execute(update(users).where(users.c.id == user_id).values(disabled_at=at))


# --- groups ----------------------------------------------------------------------------------------------------------


def all_groups(conn: Connection) -> list[Group]:
    """Return every group with its members, by name."""
    members: dict[int, list[str]] = {}
    for group_id, name in conn.execute(select(group_members).order_by(group_members.c.user_name)):
        members.setdefault(group_id, []).append(name)
    rows = conn.execute(select(groups).order_by(groups.c.name))
    return [Group(row.name, row.managed, tuple(members.get(row.id, ()))) for row in rows]


def group_id(conn: Connection, name: str) -> int | None:
    """Return the id of a group, or None."""
    return conn.execute(select(groups.c.id).where(groups.c.name == name)).scalar_one_or_none()


def set_group(conn: Connection, name: str, members: Iterable[str], managed: bool) -> None:
    """Make a group exist with exactly these members."""
    found = group_id(conn, name)
    if found is None:
        result = conn.execute(insert(groups).values(name=name, managed=managed))
        found = int(result.inserted_primary_key[0])  # type: ignore[index]  # a single-row insert always has its key
    conn.execute(update(groups).where(groups.c.id == found).values(managed=managed))
    conn.execute(delete(group_members).where(group_members.c.group_id == found))
    rows = [{"group_id": found, "user_name": member} for member in sorted(set(members))]
    if rows:
        conn.execute(insert(group_members), rows)


def remove_group(conn: Connection, name: str) -> None:
    """Remove a group, its members and every role it holds; gone already is fine."""
    found = group_id(conn, name)
    if found is None:
        return
    conn.execute(delete(roles).where(roles.c.group_id == found))
    conn.execute(delete(group_members).where(group_members.c.group_id == found))
    conn.execute(delete(groups).where(groups.c.id == found))


def in_groups(conn: Connection, user_name: str, names: Sequence[str]) -> bool:
    """Say whether a person is a member of any of these groups."""
    found = (
        select(groups.c.id)
        .join(group_members, group_members.c.group_id == groups.c.id)
        .where(groups.c.name.in_(names), group_members.c.user_name == user_name)
        .limit(1)
    )
    return conn.execute(found).first() is not None


def members(conn: Connection, names: Sequence[str]) -> frozenset[str]:
    """Return everybody who is in any of these groups."""
    found = (
        select(group_members.c.user_name)
        .join(groups, groups.c.id == group_members.c.group_id)
        .where(groups.c.name.in_(names))
    )
    return frozenset(conn.execute(found).scalars())


# --- roles -----------------------------------------------------------------------------------------------------------


def roles_of(conn: Connection, user: User, project_id: int) -> frozenset[str]:
    """Return the roles a person holds in a project, directly and through groups."""
    found = select(roles.c.role).where(roles.c.project_id == project_id, _held_by(user))
    return frozenset(conn.execute(found).scalars())


def projects_of(conn: Connection, user: User) -> frozenset[int]:
    """Return the ids of the projects in which a person holds any role."""
    return frozenset(conn.execute(select(roles.c.project_id).where(_held_by(user))).scalars())


def _held_by(user: User) -> ColumnElement[bool]:
    member_of = select(group_members.c.group_id).where(group_members.c.user_name == user.name)
    return or_(roles.c.user_id == user.id, roles.c.group_id.in_(member_of))


def all_roles(conn: Connection, project_id: int | None = None) -> list[RoleGrant]:
    """Return the roles of one project, or of all, in a fixed order."""
    found = (
        select(projects.c.name.label("project"), roles.c.role, users.c.name.label("user"), groups.c.name.label("group"))
        .join(projects, projects.c.id == roles.c.project_id)
        .outerjoin(users, users.c.id == roles.c.user_id)
        .outerjoin(groups, groups.c.id == roles.c.group_id)
        .order_by(projects.c.name, roles.c.role, users.c.name, groups.c.name)
    )
    if project_id is not None:
        found = found.where(roles.c.project_id == project_id)
    return [RoleGrant(row.project, row.role, row.user, row.group) for row in conn.execute(found)]


def set_role(conn: Connection, project_id: int, role: str | None, *, user: int | None, group: int | None) -> None:
    """Give a user or a group (exactly one of them) its one role in a project; None takes it away."""
    holder = roles.c.user_id == user if user is not None else roles.c.group_id == group
    conn.execute(delete(roles).where(roles.c.project_id == project_id, holder))
    if role is not None:
        conn.execute(insert(roles).values(project_id=project_id, user_id=user, group_id=group, role=role))
