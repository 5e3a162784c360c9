"""The facts that the rules of a promote are about, read in one transaction, and what the rules make of them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from sqlalchemy import Connection

from keepflow.core import deploys, promoting
from keepflow.core import evidence as core_evidence
from keepflow.core.direction import Direction
from keepflow.core.freeze import frozen
from keepflow.core.promoting import Guard, Host
from keepflow.engine import confiding, evidence, gates, locking, quarantining
from keepflow.engine.context import Master
from keepflow.store import agents, deployments, environments, marks, people, runs
from keepflow.store.deployments import Deployment
from keepflow.store.environments import Environment
from keepflow.store.projects import Project
from keepflow.store.releases import StoredRelease

_SECOND = 1_000_000


@dataclass(frozen=True, slots=True)
class Presser:
    """Who presses, and what the master knows they may: their role on the project and the groups they are in."""

    name: str
    has_role: bool
    groups: frozenset[str]


def guards(
    conn: Connection,
    master: Master,
    project: Project,
    environment: Environment,
    stored: StoredRelease,
    presser: Presser,
    way: Direction,
    now: int,
    *,
    rollback: bool,
) -> tuple[Guard, ...]:
    """Say of every rule whether it is met; `rollback`: the word is said."""
    source = environments.by_name(conn, project.id, environment.promote_from or "")
    digest = stored.release.digest
    tested = deployments.newest_done(conn, source.id, digest) if source and digest else None
    holding = deployments.holding(conn, environment.id)
    built = runs.by_id(conn, stored.run_id)
    found = promoting.guards(
        promoting.Facts(
            release=stored.release,
            release_name=f"{project.name}#{built.number}",
            environment=environment.name,
            hosts=tuple(host_of(conn, name) for name in environment.agents),
            promote_from=environment.promote_from,
            done_in_source=tested is not None,
            approvers=environment.approved_by,
            person=presser.name,
            person_has_role=presser.has_role,
            person_in_group=bool(presser.groups & set(environment.approved_by)),
            underway=_underway(environment, holding),
            quarantine=_quarantine(conn, (environment, source), stored.release.identity),
            lock=locking.sentence(environment),
            lock_is_own=environment.locked_by == presser.name,
            ref=built.ref,
            branches=environment.branches,
            marks=marks.of_identity(conn, source.id, stored.release.identity) if source else (),
            verified_by=environment.verified_by,
            verifiers=people.members(conn, environment.verified_by),
            four_eyes=environment.rules.four_eyes,
            max_age=environment.rules.max_age,
            age=(now - (tested.finished_at or tested.requested_at)) / _SECOND if tested else None,
            freeze=_freeze(environment, now),
            secrets=confiding.missing(conn, environment, deploys.resolve(stored.container, environment.overrides)),
            gate=gates.closed(conn, environment, stored),
            direction=way,
            rollback=rollback,
        )
    )
    if not stored.release.promotable:
        return found
    known = evidence.of_release(conn, master, stored)
    return (*found, core_evidence.guard(known.says, person_wanted=bool(environment.verified_by)))


def _quarantine(conn: Connection, places: tuple[Environment | None, ...], identity: str) -> str | None:
    found = (quarantining.sentence(conn, place, identity) for place in places if place is not None)
    return next(filter(None, found), None)


def host_of(conn: Connection, name: str) -> Host:
    """Return what the rules must know about a host."""
    agent = agents.by_name(conn, name)
    return Host(name, agent is not None and agent.revoked_at is None, agent is not None and agent.connected)


def _freeze(environment: Environment, now: int) -> str | None:
    found = frozen(environment.rules.freeze, datetime.fromtimestamp(now / _SECOND, UTC), ZoneInfo)
    if found is None:
        return None
    window, until = found.window, found.until.astimezone(ZoneInfo(found.window.tz))
    why = f": {window.why}" if window.why else ""
    return f"{environment.name} is frozen until {until:%a %Y-%m-%d %H:%M} {window.tz}{why}"


def _underway(environment: Environment, holding: list[Deployment]) -> str | None:
    if not holding:
        return None
    first = holding[0]
    return f"a deployment to {environment.name} by {first.requested_by} is not finished (phase {first.phase})"
