"""Agents and the one-time tokens they join with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, RowMapping, bindparam, delete, select, update

from keepflow.store.tables import agents, join_tokens
from keepflow.store.upsert import insert


@dataclass(frozen=True, slots=True)
class Agent:
    """One daemon, known by its key.

    `hello` is what it last said about itself, `last_report` the number of the highest report taken, `drained_by` who
    wants it to take no new work ("" = nobody).
    """

    id: int
    name: str
    public_key: str
    key_id: str
    capabilities: tuple[str, ...]
    labels: tuple[str, ...]
    slots: int
    hello: dict[str, Any] | None = field(repr=False)
    connected: bool
    offline_why: str
    drained_by: str
    last_report: int
    revoked_at: int | None
    last_seen_at: int | None
    created_at: int

    @property
    def step_kinds(self) -> frozenset[str]:
        """The step kinds it can carry out."""
        return frozenset((self.hello or {}).get("step_kinds", ()))

    @property
    def sealing_key(self) -> str:
        """The key that secrets are sealed to, in base64; "" for an agent that takes none. Its proof was checked."""
        return str((self.hello or {}).get("sealing_key", ""))


@dataclass(frozen=True, slots=True)
class JoinToken:
    """The right to join once under a name; only the token's hash is known."""

    hash: str = field(repr=False)
    agent: str
    created_by: str
    created_at: int
    expires_at: int
    used_at: int | None


#: Built once: these are asked for every report and every job, and building costs more than asking.
_EVERY = select(agents).order_by(agents.c.name)
_BY_ID = select(agents).where(agents.c.id == bindparam("agent"))
_LAST_REPORT = select(agents.c.last_report).where(agents.c.id == bindparam("agent"))
_COUNT_REPORTS = update(agents).where(agents.c.id == bindparam("agent")).values(last_report=bindparam("highest"))


def _agent(row: RowMapping) -> Agent:
    return Agent(**{**row, "capabilities": tuple(row["capabilities"]), "labels": tuple(row["labels"])})


def every(conn: Connection) -> list[Agent]:
    """List all agents by name, revoked ones too."""
    return [_agent(row) for row in conn.execute(_EVERY).mappings()]


def by_id(conn: Connection, agent_id: int) -> Agent:
    """Return an agent by its row id; it must exist."""
    return _agent(conn.execute(_BY_ID, {"agent": agent_id}).mappings().one())


def by_name(conn: Connection, name: str) -> Agent | None:
    """Return the agent of this name."""
    row = conn.execute(select(agents).where(agents.c.name == name)).mappings().first()
    return _agent(row) if row else None


def by_key(conn: Connection, key_id: str) -> Agent | None:
    """Return the agent that holds this key."""
    row = conn.execute(select(agents).where(agents.c.key_id == key_id)).mappings().first()
    return _agent(row) if row else None


def enrol(conn: Connection, name: str, public_key: str, key_id: str, now: int) -> int:
    """Give a name to a key and return the agent's row id; a name that was known gets the new key and starts afresh."""
    fresh = {
        "public_key": public_key,
        "key_id": key_id,
        "hello": None,
        "connected": False,
        "offline_why": "it has joined and was not connected yet",
        "last_report": 0,
        "revoked_at": None,
        "last_seen_at": None,
    }
    statement = insert(conn, agents).values(name=name, created_at=now, capabilities=[], labels=[], **fresh)
    statement = statement.on_conflict_do_update(index_elements=["name"], set_=fresh)
    return int(conn.execute(statement.returning(agents.c.id)).scalar_one())


def change(conn: Connection, agent_id: int, **columns: Any) -> None:
    """Set columns of an agent."""
    conn.execute(update(agents).where(agents.c.id == agent_id).values(**columns))


def seen(conn: Connection, agent_ids: Sequence[int], now: int) -> None:
    """Remember when these agents were heard last."""
    conn.execute(update(agents).where(agents.c.id.in_(agent_ids)).values(last_seen_at=now))


def count_reports(conn: Connection, agent_id: int, highest: int) -> int:
    """Count all reports up to the highest one of some as taken, and return the one up to which they were before."""
    before = int(conn.execute(_LAST_REPORT, {"agent": agent_id}).scalar_one())
    if highest > before:
        conn.execute(_COUNT_REPORTS, {"agent": agent_id, "highest": highest})
    return before


# --- join tokens -----------------------------------------------------------------------------------------------------


def add_join_token(conn: Connection, token_hash: str, agent: str, by: str, now: int, expires_at: int) -> None:
    """Remember the hash of a token that may be used once until it expires."""
    values = {"hash": token_hash, "agent": agent, "created_by": by, "created_at": now, "expires_at": expires_at}
    conn.execute(join_tokens.insert().values(**values))


def burn_join_token(conn: Connection, token_hash: str, now: int) -> JoinToken | None:
    """Use a token up and return it; None when it is unknown, used or expired."""
    query = update(join_tokens).where(
        join_tokens.c.hash == token_hash, join_tokens.c.used_at.is_(None), join_tokens.c.expires_at > now
    )
    row = conn.execute(query.values(used_at=now).returning(*join_tokens.c)).mappings().first()
    return JoinToken(**row) if row else None


def drop_join_tokens(conn: Connection) -> None:
    """Forget every token that was not used."""
    conn.execute(delete(join_tokens).where(join_tokens.c.used_at.is_(None)))


def drop_old_join_tokens(conn: Connection, before: int) -> None:
    """Forget tokens that expired before this time."""
    conn.execute(delete(join_tokens).where(join_tokens.c.expires_at < before))
