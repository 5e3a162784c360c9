"""Instances of branches leave: when the branch is gone from the remote, or nothing was deployed to one for a while.

The order for that is prepared like a rehearsal, and sent again by a later look when it could not be carried out.
"""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Connection

from keepflow.core.states import OUTCOMES
from keepflow.engine import preparing
from keepflow.engine.context import Master
from keepflow.store import deployments, environments, events, preparations, releases
from keepflow.store.environments import Environment
from keepflow.store.preparations import REMOVAL
from keepflow.store.projects import Project
from keepflow.store.writer import Tx

_SECOND = 1_000_000


def gone(tx: Tx, master: Master, project: Project, there: Collection[str], now: int) -> None:
    """Remove the instances of branches that are not among the refs that are there."""
    for environment in _instances(tx.conn, project.id):
        if environment.ref not in there:
            _remove(tx, master, environment, "branch-gone", f"{environment.ref} is gone", now)


def idle(tx: Tx, master: Master, now: int) -> None:
    """Remove the instances that nothing was deployed to for as long as their environment says, or without one."""
    for environment in environments.with_instances(tx.conn):
        base = environments.base_of(tx.conn, environment)
        if base.removed:
            _remove(tx, master, environment, "no-base", f"{base.name} is no environment any more", now)
        elif base.idle and _last_used(tx.conn, environment) + base.idle * _SECOND <= now:
            _remove(tx, master, environment, "idle", "nothing was deployed to it for too long", now)


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
