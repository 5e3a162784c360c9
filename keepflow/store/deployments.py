"""Queries of deployments: tries to make an environment serve a release."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import Connection, Exists, RowMapping, insert, select, update

from keepflow.core.progress import NEEDS
from keepflow.core.states import OUTCOMES, Phase
from keepflow.store.placements import Placement
from keepflow.store.tables import deployments, jobs, releases

#: A deployment in one of these keeps every other one of its environment waiting.
HOLDING = tuple(phase.value for phase in Phase if phase not in OUTCOMES or phase is Phase.UNKNOWN)


@dataclass(frozen=True, slots=True)
class Deployment:
    """One try; `phases` is what the agent reported, in order, `order` the envelope as it was sent."""

    id: str
    environment_id: int
    release_id: int
    job_id: int
    host: str
    kind: str
    phase: Phase
    reason_code: str
    reason: str
    requested_by: str
    note: str
    agent_id: int | None
    fence: int | None
    description: dict[str, Any]
    description_hash: str
    changes: list[dict[str, Any]]
    order: dict[str, Any] | None
    identity: str
    identity_before: str | None
    replaced_id: str | None
    phases: list[dict[str, Any]]
    canary: dict[str, Any] | None
    receipt: dict[str, Any] | None
    receipt_envelope: dict[str, Any] | None
    receipt_verdict: str
    log_tail: str
    requested_at: int
    accepted_at: int | None
    finished_at: int | None


def add(conn: Connection, values: dict[str, Any]) -> None:
    """Add a deployment; its id is made by the asker, so a second add of the same id fails on the key."""
    conn.execute(insert(deployments).values(**values))


def by_id(conn: Connection, deployment_id: str) -> Deployment | None:
    """Return one deployment, or None."""
    return _one(conn, deployments.c.id == deployment_id)


def of_job(conn: Connection, job_id: int) -> Deployment | None:
    """Return the deployment a job carries out, or None."""
    return _one(conn, deployments.c.job_id == job_id)


def of_run(conn: Connection, run_id: int) -> list[Deployment]:
    """List the deployments that the jobs of a run carry out, in the order of its jobs."""
    query = select(deployments).join(jobs, jobs.c.id == deployments.c.job_id).where(jobs.c.run_id == run_id)
    return [_deployment(row) for row in conn.execute(query.order_by(jobs.c.ordinal)).mappings()]


def by_fence(conn: Connection, fence: int) -> Deployment | None:
    """Return the deployment an attempt number stands for, or None."""
    return _one(conn, deployments.c.fence == fence)


def of_environment(conn: Connection, environment_id: int, limit: int, before: int | None = None) -> list[Deployment]:
    """List deployments of an environment, newest first, older than `before` (its `requested_at`) when given."""
    return _newest(conn, deployments.c.environment_id == environment_id, limit, before)


def of_host(conn: Connection, environment_id: int, host: str, limit: int) -> list[Deployment]:
    """List deployments of an environment to one of its hosts, newest first."""
    return _newest(conn, (deployments.c.environment_id == environment_id) & (deployments.c.host == host), limit, None)


def _newest(conn: Connection, condition: Any, limit: int, before: int | None) -> list[Deployment]:
    query = select(deployments).where(condition)
    if before is not None:
        query = query.where(deployments.c.requested_at < before)
    rows = conn.execute(query.order_by(deployments.c.requested_at.desc()).limit(limit)).mappings()
    return [_deployment(row) for row in rows]


def holding(conn: Connection, environment_id: int) -> list[Deployment]:
    """List the deployments of an environment that are not finished or whose outcome is unknown, in order of their turn.

    Those an agent was sent come first, then rollbacks, then all else in the order in which it was asked for.
    """
    query = select(deployments).where(deployments.c.environment_id == environment_id, deployments.c.phase.in_(HOLDING))
    rows = conn.execute(query.order_by(deployments.c.requested_at, deployments.c.job_id)).mappings()
    found = [_deployment(row) for row in rows]
    return sorted(found, key=lambda one: (one.phase == Phase.QUEUED, one.kind != "rollback"))


def unsent(conn: Connection) -> list[Deployment]:
    """List the deployments whose order no agent has accepted yet and whose job may start, oldest first."""
    phases = (Phase.QUEUED.value, Phase.OFFERED.value)
    query = (
        select(deployments)
        .join(jobs, jobs.c.id == deployments.c.job_id)
        .where(deployments.c.phase.in_(phases), jobs.c.reason_code != NEEDS)
    )
    rows = conn.execute(query.order_by(deployments.c.requested_at, deployments.c.job_id)).mappings()
    return [_deployment(row) for row in rows]


def sent_to(conn: Connection, agent_id: int) -> list[Deployment]:
    """List the deployments whose order an agent was sent and whose end it has not told, oldest first."""
    phases = tuple(phase for phase in HOLDING if phase not in (Phase.QUEUED.value, Phase.UNKNOWN.value))
    query = select(deployments).where(deployments.c.agent_id == agent_id, deployments.c.phase.in_(phases))
    return [_deployment(row) for row in conn.execute(query.order_by(deployments.c.fence)).mappings()]


def done(conn: Connection, environment_id: int, limit: int) -> list[Deployment]:
    """List the deployments that ended `done` in an environment, and so did those to its other hosts; newest first."""
    query = select(deployments).where(
        deployments.c.environment_id == environment_id, deployments.c.phase == Phase.DONE.value, ~_stopped_half_way()
    )
    rows = conn.execute(query.order_by(deployments.c.requested_at.desc()).limit(limit)).mappings()
    return [_deployment(row) for row in rows]


def ordered(conn: Connection, project_id: int, digest: str, limit: int) -> list[dict[str, Any]]:
    """List the envelopes of the newest orders that agents accepted for a registry digest, oldest first."""
    query = (
        select(deployments.c.order)
        .join(releases, releases.c.id == deployments.c.release_id)
        .where(releases.c.project_id == project_id, releases.c.digest == digest, deployments.c.accepted_at.is_not(None))
        .order_by(deployments.c.accepted_at.desc())
    )
    found: list[dict[str, Any]] = list(conn.execute(query.limit(limit)).scalars())
    return found[::-1]


def currents(conn: Connection, hosts: Iterable[Placement]) -> list[Deployment]:
    """List the deployments that made hosts serve what they serve, in the order of the hosts."""
    found = (by_id(conn, host.current_id) for host in hosts if host.current_id)
    return [deployment for deployment in found if deployment is not None]


def newest_current(conn: Connection, hosts: Iterable[Placement]) -> Deployment | None:
    """Return the deployment that made one of these hosts serve something last; None when none ever was."""
    return max(currents(conn, hosts), key=lambda found: found.requested_at, default=None)


def newest_done(conn: Connection, environment_id: int, identity: str) -> Deployment | None:
    """Return the newest deployment of an image that ended `done` in an environment, on every host it went to."""
    query = select(deployments).where(
        deployments.c.environment_id == environment_id,
        deployments.c.phase == Phase.DONE.value,
        deployments.c.identity == identity,
        ~_stopped_half_way(),
    )
    row = conn.execute(query.order_by(deployments.c.finished_at.desc()).limit(1)).mappings().first()
    return _deployment(row) if row else None


def move(conn: Connection, deployment: Deployment, phase: Phase, values: dict[str, Any]) -> bool:
    """Change a deployment only if it still is in the phase it was read in; say whether it was."""
    key = (deployments.c.id == deployment.id) & (deployments.c.phase == deployment.phase.value)
    return conn.execute(update(deployments).where(key).values(phase=phase.value, **values)).rowcount == 1


def _stopped_half_way() -> Exists:
    """Whether a deployment has a sibling, of the same run to another host of its environment, that is not `done`."""
    job, sibling, its_job = jobs.alias(), deployments.alias(), jobs.alias()
    query = (
        select(sibling.c.id)
        .join(its_job, its_job.c.id == sibling.c.job_id)
        .join(job, job.c.run_id == its_job.c.run_id)
        .where(
            job.c.id == deployments.c.job_id,
            sibling.c.environment_id == deployments.c.environment_id,
            sibling.c.phase != Phase.DONE.value,
        )
    )
    return query.correlate(deployments).exists()


def _one(conn: Connection, condition: Any) -> Deployment | None:
    row = conn.execute(select(deployments).where(condition)).mappings().first()
    return _deployment(row) if row else None


def _deployment(row: RowMapping) -> Deployment:
    values = {field.name: row[field.name] for field in fields(Deployment)}
    return Deployment(**{**values, "phase": Phase(row["phase"])})
