"""Sessions, API tokens and one-time links; of each only the digest is stored."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, delete, insert, or_, select, update

from keepflow.store.tables import api_tokens, links, sessions, users


@dataclass(frozen=True, slots=True)
class Session:
    """One signed-in browser. `csrf` is what its forms must carry."""

    hash: str
    user_id: int
    csrf: str
    created_at: int
    used_at: int


@dataclass(frozen=True, slots=True)
class ApiToken:
    """One API token, without the token itself."""

    id: int
    user_id: int
    user: str
    name: str
    scopes: tuple[str, ...]
    created_at: int
    expires_at: int | None
    used_at: int | None
    revoked_at: int | None


@dataclass(frozen=True, slots=True)
class Link:
    """A one-time link: to set up the first admin (`user_id` None) or to set one user's password."""

    purpose: str
    user_id: int | None
    expires_at: int
    used_at: int | None


# --- sessions --------------------------------------------------------------------------------------------------------


def add_session(conn: Connection, hashed: str, user_id: int, csrf: str, now: int) -> None:
    """Store a new session."""
    conn.execute(insert(sessions).values(hash=hashed, user_id=user_id, csrf=csrf, created_at=now, used_at=now))


def session(conn: Connection, hashed: str) -> Session | None:
    """Return a session by digest, however old."""
    row = conn.execute(select(sessions).where(sessions.c.hash == hashed)).first()
    return Session(row.hash, row.user_id, row.csrf, row.created_at, row.used_at) if row else None


def touch_session(conn: Connection, hashed: str, now: int) -> None:
    """Note that a session was used."""
    conn.execute(update(sessions).where(sessions.c.hash == hashed).values(used_at=now))


def end_session(conn: Connection, hashed: str) -> None:
    """End one session; gone already is fine."""
    conn.execute(delete(sessions).where(sessions.c.hash == hashed))


def end_sessions_of(conn: Connection, user_id: int) -> None:
    """End every session of a user."""
    conn.execute(delete(sessions).where(sessions.c.user_id == user_id))


def sweep(conn: Connection, created_before: int, used_before: int, now: int) -> None:
    """Delete sessions created or last used before these times, and links that expired."""
    old = or_(sessions.c.created_at < created_before, sessions.c.used_at < used_before)
    conn.execute(delete(sessions).where(old))
    conn.execute(delete(links).where(links.c.expires_at < now))


# --- API tokens ------------------------------------------------------------------------------------------------------


def add_token(
    conn: Connection, hashed: str, user_id: int, name: str, scopes: list[str], expires_at: int | None, now: int
) -> int:
    """Store a new API token and return its id."""
    row = {"hash": hashed, "user_id": user_id, "name": name, "scopes": scopes}
    result = conn.execute(insert(api_tokens).values(**row, expires_at=expires_at, created_at=now))
    return int(result.inserted_primary_key[0])  # type: ignore[index]  # a single-row insert always has its key


_TOKENS = select(api_tokens, users.c.name.label("user")).join(users, users.c.id == api_tokens.c.user_id)


def token(conn: Connection, hashed: str) -> ApiToken | None:
    """Return a token by digest, dead or alive."""
    row = conn.execute(_TOKENS.where(api_tokens.c.hash == hashed)).mappings().first()
    return _token(dict(row)) if row else None


def tokens(conn: Connection, user_id: int | None = None) -> list[ApiToken]:
    """Return the tokens of one user, or of everybody, newest first."""
    found = _TOKENS.order_by(api_tokens.c.id.desc())
    if user_id is not None:
        found = found.where(api_tokens.c.user_id == user_id)
    return [_token(dict(row)) for row in conn.execute(found).mappings()]


def _token(row: dict[str, object]) -> ApiToken:
    row.pop("hash")
    return ApiToken(**{**row, "scopes": tuple(row["scopes"])})  # type: ignore[arg-type]  # a row of our own table


def touch_token(conn: Connection, token_id: int, now: int) -> None:
    """Note that a token was used."""
    conn.execute(update(api_tokens).where(api_tokens.c.id == token_id).values(used_at=now))


def revoke_token(conn: Connection, token_id: int, now: int) -> bool:
    """Revoke a token; False when it was revoked before."""
    alive = (api_tokens.c.id == token_id) & api_tokens.c.revoked_at.is_(None)
    return conn.execute(update(api_tokens).where(alive).values(revoked_at=now)).rowcount == 1


# --- one-time links --------------------------------------------------------------------------------------------------


def add_link(conn: Connection, hashed: str, purpose: str, user_id: int | None, expires_at: int, now: int) -> None:
    """Store a new one-time link."""
    row = {"hash": hashed, "purpose": purpose, "user_id": user_id}
    conn.execute(insert(links).values(**row, created_at=now, expires_at=expires_at))


def link(conn: Connection, hashed: str) -> Link | None:
    """Return a link by digest, used or not."""
    row = conn.execute(select(links).where(links.c.hash == hashed)).first()
    return Link(row.purpose, row.user_id, row.expires_at, row.used_at) if row else None


def burn_link(conn: Connection, hashed: str, now: int) -> bool:
    """Use a link up; False when somebody else did so first."""
    fresh = (links.c.hash == hashed) & links.c.used_at.is_(None)
    return conn.execute(update(links).where(fresh).values(used_at=now)).rowcount == 1


def drop_links(conn: Connection, purpose: str, user_id: int | None = None) -> None:
    """Forget unused links of a purpose (for one user), so that only the newest works."""
    same = (links.c.purpose == purpose) & links.c.used_at.is_(None)
    conn.execute(
        delete(links).where(same, links.c.user_id.is_(None) if user_id is None else links.c.user_id == user_id)
    )
