"""Locks: somebody holds an environment still, with a reason everybody reads."""

from __future__ import annotations

from functools import partial

from keepflow.core.promoting import LEAST_REASON
from keepflow.core.text import one_line
from keepflow.engine.context import Master
from keepflow.errors import Denied, Refused, UsageError
from keepflow.store import environments, events
from keepflow.store.environments import Environment
from keepflow.store.writer import Tx

WHY_LIMIT = 500


def lock(tx: Tx, master: Master, environment: Environment, why: str, by: str, now: int) -> None:
    """Lock an environment; what an agent has accepted goes on. The holder may lock again, to say another reason.

    Raises UsageError `needs-why`, and Refused `locked` when somebody else holds it.
    """
    if not why.strip():
        raise UsageError("say why: everybody who waits will read it", code="needs-why")
    if environment.locked_by is not None and environment.locked_by != by:
        raise Refused(sentence(environment) or "", code="locked")
    reason = one_line(why, WHY_LIMIT)
    since = environment.locked_at if environment.locked_by == by else now
    environments.set_lock(tx.conn, environment.id, by, reason, since)
    _event(tx, master, environment, "locked", by, {"why": reason}, now)


def unlock(tx: Tx, master: Master, environment: Environment, by: str, admin: bool, now: int) -> None:
    """Unlock an environment: its holder, or an admin. Raises Refused `not-locked` and Denied `not-holder`."""
    holder = environment.locked_by
    if holder is None:
        raise Refused(f"{environment.name} is not locked", code="not-locked")
    if holder != by and not admin:
        raise Denied(
            f"{holder} holds the lock of {environment.name}; {holder} or an admin unlocks it, and a promote "
            f"that cannot wait breaks the glass with a reason of {LEAST_REASON} characters",
            code="not-holder",
        )
    environments.set_lock(tx.conn, environment.id, None, None, None)
    _event(tx, master, environment, "unlocked", by, {"holder": holder}, now)


def sentence(environment: Environment) -> str | None:
    """Say who locked an environment and why; None when nobody did."""
    if environment.locked_by is None:
        return None
    return f"{environment.name} is locked by {environment.locked_by}: {environment.locked_why}"


def _event(
    tx: Tx, master: Master, environment: Environment, kind: str, by: str, data: dict[str, str | None], now: int
) -> None:
    events.add_about(tx, now, kind, environment, actor=by, data=data)
    for topic in ("dispatch", "events"):
        tx.after_commit(partial(master.wakes.fire, topic))
