"""What agents see serving: written down, and said aloud when it begins or ceases to be what was deployed."""

from __future__ import annotations

from sqlalchemy import Connection

from keepflow.core import drift
from keepflow.store import deployments, environments, events, placements
from keepflow.store.agents import Agent
from keepflow.store.placements import Placement
from keepflow.store.writer import Tx
from keepflow.wire import messages


def differences(conn: Connection, placement: Placement) -> tuple[drift.Difference, ...]:
    """Say how a host differs from what was deployed there."""
    return drift.differences(placement.observed, _deployed(conn, placement))


def observe(tx: Tx, agent: Agent, state: messages.ServiceState, now: int) -> bool:
    """Store what a service serves, on the environment it is bound to here; False when that is known already."""
    placement = placements.of_service(tx.conn, agent.name, state.service, state.instance)
    seen = state.model_dump(mode="json")
    if placement is None or placement.observed == seen:
        return False
    placements.observe(tx.conn, placement.environment_id, placement.host, seen)
    if not seen.get("busy"):
        identity = _deployed(tx.conn, placement)
        _say(tx, placement, drift.differences(placement.observed, identity), drift.differences(seen, identity), now)
    return True


def _deployed(conn: Connection, placement: Placement) -> str | None:
    current = deployments.by_id(conn, placement.current_id) if placement.current_id else None
    return current.identity if current else None


def _say(
    tx: Tx, placement: Placement, before: tuple[drift.Difference, ...], found: tuple[drift.Difference, ...], now: int
) -> None:
    if bool(before) == bool(found):
        return
    environment = environments.by_id(tx.conn, placement.environment_id)
    kind, data = "drift-ended", {"host": placement.host}
    if found:
        kind, data = "drift-began", {**data, "sentence": drift.sentence(found) or ""}
    events.add_about(tx, now, kind, environment, data=data)
