"""Locks: somebody holds an environment still, with a reason everybody reads."""

from __future__ import annotations

from functools import partial

from keepflow.core.holding import Hold
from keepflow.core.promoting import LEAST_REASON
from keepflow.engine.context import Master
from keepflow.store import environments, events
from keepflow.store.environments import Environment
from keepflow.store.writer import Tx


def lock(tx: Tx, master: Master, environment: Environment, why: str, by: str, now: int) -> None:
    """Lock an environment; what an agent has accepted goes on. The holder may lock again, to say another reason.

    Raises UsageError `needs-why`, and Refused `locked` when somebody else holds it.
    """
    reason = _hold_of(environment).take(by, why)
    environments.set_lock(tx.conn, environment.id, by, reason, environment.locked_at or now)
    _event(tx, master, environment, "locked", by, {"why": reason}, now)


def unlock(tx: Tx, master: Master, environment: Environment, by: str, admin: bool, now: int) -> None:
    """Unlock an environment: its holder, or an admin. Raises Refused `not-locked` and Denied `not-holder`."""
    otherwise = f", and a promote that cannot wait breaks the glass with a reason of {LEAST_REASON} characters"
    holder = _hold_of(environment).let_go(by, admin, otherwise)
    environments.set_lock(tx.conn, environment.id, None, None, None)
    _event(tx, master, environment, "unlocked", by, {"holder": holder}, now)


def sentence(environment: Environment) -> str | None:
    """Say who locked an environment and why; None when nobody did."""
    return _hold_of(environment).sentence()


def _hold_of(environment: Environment) -> Hold:
    return Hold(environment.name, "locked", environment.locked_by, environment.locked_why)


def _event(
    tx: Tx, master: Master, environment: Environment, kind: str, by: str, data: dict[str, str | None], now: int
) -> None:
    events.add_about(tx, now, kind, environment, actor=by, data=data)
    for topic in ("dispatch", "events"):
        tx.after_commit(partial(master.wakes.fire, topic))
