"""Queries of placements: an environment on one of its hosts, what was deployed there and what was seen serving."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select, update

from keepflow.store.tables import environments, placements


@dataclass(frozen=True, slots=True)
class Placement:
    """One host of an environment; `host` is the name of its agent, `current_id` the last done deployment there."""

    environment_id: int
    host: str
    current_id: str | None
    observed: dict[str, Any] | None

    @property
    def identity(self) -> str | None:
        """What the agent last said serves there; None when nothing does or nobody has looked yet."""
        return (self.observed or {}).get("identity")


def of_environments(conn: Connection, environment_ids: Iterable[int]) -> dict[int, tuple[Placement, ...]]:
    """Return the hosts of each of these environments, in the order in which they are switched."""
    query = select(
        placements.c.environment_id, placements.c.host, placements.c.current_id, placements.c.observed
    ).where(placements.c.environment_id.in_(list(environment_ids)), placements.c.removed_at.is_(None))
    found: dict[int, list[Placement]] = {}
    for row in conn.execute(query.order_by(placements.c.environment_id, placements.c.position)):
        found.setdefault(row.environment_id, []).append(Placement(*row))
    return {environment_id: tuple(hosts) for environment_id, hosts in found.items()}


def of_service(conn: Connection, host: str, service: str, instance: str) -> Placement | None:
    """Return the placement that one instance of an agent's service belongs to, or None."""
    query = (
        select(placements.c.environment_id, placements.c.host, placements.c.current_id, placements.c.observed)
        .join(environments, environments.c.id == placements.c.environment_id)
        .where(
            placements.c.host == host,
            placements.c.removed_at.is_(None),
            environments.c.service == service,
            environments.c.instance == instance,
            environments.c.removed_at.is_(None),
        )
    )
    row = conn.execute(query).first()
    return Placement(*row) if row else None


def put(conn: Connection, environment_id: int, hosts: Sequence[str], now: int) -> None:
    """Make these the hosts of an environment, in this order; one that comes back remembers what it was deployed."""
    of_it = placements.c.environment_id == environment_id
    conn.execute(update(placements).where(of_it, placements.c.host.not_in(hosts)).values(removed_at=now))
    known = set(conn.execute(select(placements.c.host).where(of_it)).scalars())
    for position, host in enumerate(hosts):
        if host in known:
            query = update(placements).where(of_it, placements.c.host == host)
            conn.execute(query.values(position=position, removed_at=None))
        else:
            row = {"environment_id": environment_id, "host": host, "position": position}
            conn.execute(placements.insert().values(**row))


def set_current(conn: Connection, environment_id: int, host: str, deployment_id: str) -> None:
    """Record the deployment that made a host serve what it serves now."""
    _change(conn, environment_id, host, current_id=deployment_id)


def forget(conn: Connection, environment_id: int) -> None:
    """Record that nothing of an environment is on its hosts any more."""
    of_it = placements.c.environment_id == environment_id
    conn.execute(update(placements).where(of_it).values(current_id=None, observed=None))


def observe(conn: Connection, environment_id: int, host: str, seen: dict[str, Any]) -> None:
    """Record what the agent says is serving on a host."""
    _change(conn, environment_id, host, observed=seen)


def _change(conn: Connection, environment_id: int, host: str, **values: Any) -> None:
    key = (placements.c.environment_id == environment_id) & (placements.c.host == host)
    conn.execute(update(placements).where(key).values(**values))
