"""Broken glass: what was deployed outside the rules stays in everybody's sight until somebody else followed it up."""

from __future__ import annotations

from collections.abc import Sequence

from keepflow.core.promoting import Guard
from keepflow.core.text import one_line
from keepflow.engine.context import Master
from keepflow.errors import Denied, NotFound, Refused
from keepflow.store import breakglass, events
from keepflow.store.breakglass import BrokenGlass
from keepflow.store.environments import Environment
from keepflow.store.projects import Project
from keepflow.store.writer import Tx


def record(
    tx: Tx,
    environment: Environment,
    deployment: str,
    overridden: Sequence[Guard],
    *,
    by: str,
    reason: str,
    now: int,
) -> None:
    """Write down which rules a deployment did not keep, by whom and why."""
    rules = [{"code": guard.code, "sentence": guard.sentence} for guard in overridden]
    breakglass.add(
        tx.conn,
        project_id=environment.project_id,
        environment_id=environment.id,
        deployment_id=deployment,
        actor=by,
        reason=reason.strip(),
        overridden=rules,
        at=now,
    )
    events.add_about(
        tx,
        now,
        "break-glass",
        environment,
        actor=by,
        deployment=deployment,
        data={"reason": reason.strip(), "overridden": rules},
    )


def acknowledge(tx: Tx, master: Master, project: Project, number: int, by: str, now: int) -> BrokenGlass:
    """Let somebody else than the actor say that it was followed up; raises NotFound, Denied `own-glass` and Refused."""
    found = breakglass.by_id(tx.conn, project.id, number)
    if found is None:
        raise NotFound(f"{project.name} has no broken glass number {number}", code="no-break-glass")
    if found.actor == by:
        raise Denied(f"{by} broke the glass, so somebody else must follow it up", code="own-glass")
    if not breakglass.acknowledge(tx.conn, number, by, now):
        raise Refused(f"{found.acknowledged_by} has followed it up already", code="acknowledged")
    events.add(
        tx,
        now,
        "break-glass-acknowledged",
        actor=by,
        project_id=project.id,
        environment_id=found.environment_id,
        deployment_id=found.deployment_id,
        data={"actor": found.actor},
    )
    tx.after_commit(lambda: master.wakes.fire("events"))
    return found


def approver(deployment_by: str, broken: BrokenGlass | None) -> str:
    """Name who lets a deployment pass, as the order to the host does: with the glass when it was broken."""
    if broken is None:
        return deployment_by
    return f"{deployment_by} (break-glass: {one_line(broken.reason, 300)})"
