"""Instances of branches leave: when the branch is gone from the remote, or nothing was deployed to one for a while.

The order for that is prepared like a rehearsal, and sent again by a later look when it could not be carried out.
"""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Connection

from keepflow.core.states import OUTCOMES, Reason
from keepflow.engine import preparing
from keepflow.engine.context import Master
from keepflow.store import deployments, environments, events, preparations, releases
from keepflow.store.environments import Environment
from keepflow.store.preparations import REMOVAL
from keepflow.store.projects import Project
from keepflow.store.writer import Tx

_SECOND = 1_000_000
_AGAIN = 600  #: seconds until the removal of an idle instance that failed is ordered anew


def gone(tx: Tx, master: Master, project: Project, there: Collection[str], now: int) -> None:
    """Remove the instances of branches that are not among the refs that are there."""
    for environment in _instances(tx.conn, project.id):
        if environment.ref not in there:
            _remove(tx, master, environment, "branch-gone", f"{environment.ref} is gone", now)


def sweep(master: Master, now: int) -> None:
    """Remove the instances whose time is over; the writer is asked only when there is one."""
    with master.database.read() as conn:
        over = any(_over(conn, environment, now) for environment in environments.with_instances(conn))
    if over:
        master.writer.call(lambda tx: idle(tx, master, now))


def idle(tx: Tx, master: Master, now: int) -> None:
    """Remove the instances that nothing was deployed to for as long as their environment says, or without one."""
    for environment in environments.with_instances(tx.conn):
        why = _over(tx.conn, environment, now)
        if why is not None:
            _remove(tx, master, environment, why.code, why.sentence, now)


def _over(conn: Connection, environment: Environment, now: int) -> Reason | None:
    """Say why the time of an instance is over, or None while it is not, or its removal was ordered a moment ago."""
    ordered = preparations.newest(conn, environment.id, REMOVAL)
    if ordered is not None and ordered.requested_at + _AGAIN * _SECOND > now:
        return None
    base = environments.base_of(conn, environment)
    if base.removed:
        return Reason("no-base", f"{base.name} is no environment any more")
    if base.idle and _last_used(conn, environment) + base.idle * _SECOND <= now:
        return Reason("idle", "nothing was deployed to it for too long")
    return None


def _instances(conn: Connection, project_id: int) -> list[Environment]:
    return [found for found in environments.of_project(conn, project_id) if found.base_id is not None]


def _last_used(conn: Connection, environment: Environment) -> int:
    newest = deployments.of_environment(conn, environment.id, 1, None)
    return newest[0].requested_at if newest else 0


def _remove(tx: Tx, master: Master, environment: Environment, code: str, why: str, now: int) -> None:
    """Order the removal of an instance on all its hosts, unless that is under way or somebody deploys to it."""
    newest = deployments.of_environment(tx.conn, environment.id, 1, None)
    if not newest:
        environments.remove(tx.conn, environment.id, now)
    elif newest[0].phase in OUTCOMES and not preparations.live(tx.conn, environment.id, REMOVAL):
        stored = releases.by_id(tx.conn, newest[0].release_id)
        preparing.add(tx, master, environment, stored, list(environment.agents), REMOVAL, "keepflow", None, now)
        events.add_about(tx, now, "instance-removal", environment, actor="keepflow", data={"code": code, "why": why})
