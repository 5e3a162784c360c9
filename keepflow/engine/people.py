"""Who somebody is and what they may do: the rules gateway, web and command line share.

A role grants a verb on a project, a scope narrows a token, an environment's list narrows both (`listed`). Whoever may
not even see a thing is answered as if it did not exist.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from sqlalchemy import Connection

from keepflow import errors
from keepflow.core import roles
from keepflow.core.names import is_name
from keepflow.crypto import tokens
from keepflow.engine.context import Master
from keepflow.store import credentials, events, people, settings
from keepflow.store.people import User
from keepflow.store.writer import Tx
from keepflow.tools import files

_SECOND = 1_000_000
SESSION_IDLE = 8 * 3600 * _SECOND
SESSION_LONGEST = 24 * 3600 * _SECOND
#: The command line on the master's own machine: whoever can read its token file owns the machine.
LOCAL_ADMIN = User(id=0, name="local-admin", admin=True)
ADMIN_TOKEN_FILE = "admin.token"  # noqa: S105 - a file name
_ADMIN_TOKEN_SETTING = "admin-token-hash"  # noqa: S105 - a key of the settings table
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,58}[a-z0-9])?")


# --- who -------------------------------------------------------------------------------------------------------------


def cookie_name(url: str) -> str:
    """Return the name of the session cookie at a public address; the `__Host-` form binds it to https and this host."""
    return "__Host-kf" if url.startswith("https:") else "kf"


def live_session(conn: Connection, cookie: str, now: int) -> tuple[User, credentials.Session] | None:
    """Return the person and the session behind a cookie, or None when it is unknown, too old, or the user disabled."""
    found = credentials.session(conn, tokens.digest(cookie)) if cookie else None
    if found is None or now - found.created_at > SESSION_LONGEST or now - found.used_at > SESSION_IDLE:
        return None
    user = people.user_by_id(conn, found.user_id)
    return (user, found) if user and user.disabled_at is None else None


def session_user(conn: Connection, cookie: str, now: int) -> User | None:
    """Return the person behind a session cookie, or None."""
    found = live_session(conn, cookie, now)
    return found[0] if found else None


def token_user(conn: Connection, bearer: str, now: int) -> tuple[User, tuple[str, ...]] | None:
    """Return the person behind a bearer token and the token's scopes, or None when it is not a living one."""
    kind = tokens.kind_of(bearer)
    if kind == "admin":
        stored = settings.get(conn, _ADMIN_TOKEN_SETTING)
        alive = isinstance(stored, str) and tokens.matches(bearer, stored)
        return (LOCAL_ADMIN, ("admin",)) if alive else None
    found = credentials.token(conn, tokens.digest(bearer)) if kind == "api" else None
    if found is None or found.revoked_at is not None or (found.expires_at is not None and found.expires_at <= now):
        return None
    user = people.user_by_id(conn, found.user_id)
    return (user, found.scopes) if user and user.disabled_at is None else None


def sweep(tx: Tx, now: int) -> None:
    """Delete sessions and links that no longer open anything."""
    credentials.sweep(tx.conn, now - SESSION_LONGEST, now - SESSION_IDLE, now)


# --- may -------------------------------------------------------------------------------------------------------------


def may(conn: Connection, user: User, project_id: int | None, verb: str) -> bool:
    """Say whether a person may do a verb on a project, or on the server itself (`project_id` None).

    Verbs are those of `core.roles`; an unknown one is never allowed. Admins of the server may do every verb.
    """
    if project_id is None:
        return verb in roles.OWN_VERBS or (verb in roles.SERVER_VERBS and user.admin)
    if verb not in roles.PROJECT_VERBS:
        return False
    return user.admin or roles.grants((roles.Role(name) for name in people.roles_of(conn, user, project_id)), verb)


def visible_projects(conn: Connection, user: User) -> frozenset[int] | None:
    """Return the ids of the projects a person may see; None means all."""
    return None if user.admin else people.projects_of(conn, user)


def listed(conn: Connection, user: User, groups: Sequence[str]) -> bool:
    """Say whether an environment's list lets a person through: the list is empty, or they are in one of its groups.

    Nobody is exempt, admins included: both the role and the list are needed.
    """
    return not groups or people.in_groups(conn, user.name, groups)


# --- the token file of the same machine ------------------------------------------------------------------------------


def install_admin_token(master: Master) -> Path:
    """Make sure the token file for the command line on this machine exists (0600) and is the one that opens."""
    path = master.home / ADMIN_TOKEN_FILE
    token = files.read_private(path).decode().strip() if path.exists() else ""
    if tokens.kind_of(token) != "admin":
        token = tokens.new("admin")
        files.write_atomic(path, f"{token}\n".encode(), 0o600)
    master.writer.call(lambda tx: settings.put(tx.conn, _ADMIN_TOKEN_SETTING, tokens.digest(token)))
    return path


# --- users, groups, roles, tokens ------------------------------------------------------------------------------------


def check_name(name: str) -> str:
    """Return a user name that is legal and not reserved; raises UsageError."""
    if _NAME.fullmatch(name) is None or name == LOCAL_ADMIN.name:
        raise errors.UsageError(
            "a user name has 1 to 60 of a-z 0-9 . _ -, begins and ends with a letter or digit, and is not reserved",
            code="bad-name",
        )
    return name


def add_user(tx: Tx, name: str, email: str, admin: bool, by: str, now: int) -> User:
    """Add a person who cannot sign in yet (give them a link); raises UsageError or Refused `exists`."""
    if people.user_by_name(tx.conn, check_name(name)) is not None:
        raise errors.Refused(f"there is a user {name} already", code="exists")
    people.add_user(tx.conn, name, email, admin, now)
    events.add(tx, now, "user-added", actor=by, data={"user": name, "admin": admin})
    return existing_user(tx.conn, name)


def existing_user(conn: Connection, name: str) -> User:
    """Return a user by name; raises NotFound."""
    user = people.user_by_name(conn, name)
    if user is None:
        raise errors.NotFound(f"there is no user {name[:60]!r}", code="no-user")
    return user


def set_disabled(tx: Tx, name: str, disabled: bool, by: str, now: int) -> None:
    """Disable a person (every session and so every token of theirs is dead at once) or enable them again."""
    user = existing_user(tx.conn, name)
    people.set_disabled(tx.conn, user.id, now if disabled else None)
    credentials.end_sessions_of(tx.conn, user.id)
    events.add(tx, now, "user-disabled" if disabled else "user-enabled", actor=by, data={"user": name})


def set_group(tx: Tx, name: str, members: Sequence[str], by: str, now: int) -> None:
    """Make a group exist with exactly these members; raises UsageError, and Refused `managed` for the server file's."""
    if not is_name(name):
        raise errors.UsageError("a group name has 1 to 40 of a-z 0-9 -", code="bad-name")
    _own_group(tx.conn, name)
    for member in members:
        check_name(member)
    people.set_group(tx.conn, name, members, managed=False)
    events.add(tx, now, "group-set", actor=by, data={"group": name, "members": sorted(set(members))})


def remove_group(tx: Tx, name: str, by: str, now: int) -> None:
    """Remove a group and the roles it holds; raises Refused `managed`."""
    _own_group(tx.conn, name)
    people.remove_group(tx.conn, name)
    events.add(tx, now, "group-removed", actor=by, data={"group": name})


def _own_group(conn: Connection, name: str) -> None:
    found = next((group for group in people.all_groups(conn) if group.name == name), None)
    if found and found.managed:
        raise errors.Refused(f"group {name} is managed by the server file; change it there and apply", code="managed")


def set_role(tx: Tx, project_id: int, role: str | None, *, user: str = "", group: str = "", by: str, now: int) -> None:
    """Give a user or a group its role in a project, or take it away (None); raises UsageError or NotFound."""
    if bool(user) == bool(group):
        raise errors.UsageError("name either a user or a group", code="one-holder")
    if role is not None and role not in roles.ORDER:
        raise errors.UsageError(f"there is no role {role[:40]!r}; use one of {', '.join(roles.ORDER)}", code="no-role")
    user_id = existing_user(tx.conn, user).id if user else None
    group_id = people.group_id(tx.conn, group) if group else None
    if group and group_id is None:
        raise errors.NotFound(f"there is no group {group[:60]!r}", code="no-group")
    people.set_role(tx.conn, project_id, role, user=user_id, group=group_id)
    data = {"role": role, "user": user or None, "group": group or None}
    events.add(tx, now, "role-set", actor=by, project_id=project_id, data=data)


def make_token(tx: Tx, user: User, name: str, scopes: Sequence[str], days: int | None, by: str, now: int) -> str:
    """Make an API token for a person and return it; it is shown this once. Raises UsageError for unknown scopes."""
    unknown = [scope for scope in scopes if scope not in roles.SCOPES]
    if unknown or not scopes:
        raise errors.UsageError(f"scopes are {', '.join(roles.SCOPES)}; name at least one", code="no-scope")
    if user.id == LOCAL_ADMIN.id:
        raise errors.UsageError("name the user the token is for", code="no-user")
    token = tokens.new("api")
    expires_at = None if days is None else now + days * 86400 * _SECOND
    added = credentials.add_token(tx.conn, tokens.digest(token), user.id, name, sorted(set(scopes)), expires_at, now)
    events.add(tx, now, "token-made", actor=by, data={"token": added, "user": user.name, "scopes": sorted(set(scopes))})
    return token


def revoke_token(tx: Tx, token_id: int, by: User, now: int) -> None:
    """Revoke a token of one's own, or anybody's as an admin of the server; raises NotFound."""
    mine = credentials.tokens(tx.conn, None if by.admin else by.id)
    if token_id not in {token.id for token in mine}:
        raise errors.NotFound(f"there is no token {token_id}", code="no-token")
    if credentials.revoke_token(tx.conn, token_id, now):
        events.add(tx, now, "token-revoked", actor=by.name, data={"token": token_id})


def session_cookie(cookies: Mapping[str, str], url: str) -> str:
    """Return the session cookie's value among a request's cookies, or ""."""
    return cookies.get(cookie_name(url), "")
