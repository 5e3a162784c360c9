"""Rollbacks: deployments of releases that served here before, pressed at the master or reported by a host."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from keepflow.core import deploys, rollbacks
from keepflow.core.deploys import Change
from keepflow.core.promoting import Guard, unmet
from keepflow.core.rollbacks import Readiness
from keepflow.core.states import Phase, Reason, job_state_of
from keepflow.core.text import one_line
from keepflow.engine import deploying, dispatch, locking
from keepflow.engine import hosts as several
from keepflow.engine.context import Master
from keepflow.engine.guarding import Presser, host_of
from keepflow.engine.promoting import COMMITS_SHOWN, find_release
from keepflow.errors import Refused
from keepflow.store import agents, deployments, environments, events, jobs, placements, projects, releases, runs
from keepflow.store.agents import Agent
from keepflow.store.deployments import Deployment
from keepflow.store.environments import Environment
from keepflow.store.placements import Placement
from keepflow.store.projects import Project
from keepflow.store.releases import StoredRelease
from keepflow.store.runs import Run
from keepflow.store.writer import Tx
from keepflow.tools.git import Commit
from keepflow.wire import messages

#: Name of the flow that carries out rollbacks; no flow file can define it.
FLOW = several.FLOW
_LOOKED_BACK = 100  #: deployments of an environment
_MOST_PHASES, _A_DAY = 50, 86_400.0


@dataclass(frozen=True, slots=True)
class Preview:
    """What a rollback would do: every guard, the commits that would go away, the settings that change, how ready."""

    project: Project
    environment: Environment
    target: Deployment | None  #: the deployment whose release and settings would serve again
    stored: StoredRelease | None
    run: Run | None
    current: Deployment | None
    guards: tuple[Guard, ...]
    ready: Readiness
    leaving: list[Commit]
    coming: list[Commit]
    changes: list[Change]

    @property
    def allowed(self) -> bool:
        """Whether every guard is met."""
        return not unmet(self.guards)


def preview(master: Master, project: Project, environment: Environment, source: str, presser: Presser) -> Preview:
    """Say what a rollback would do, without doing it; `source` is a run number, a digest, or "" for what served before.

    Raises NotFound and UsageError for a source that names no release.
    """
    with master.database.read() as conn:
        target = _target(conn, project, environment, source)
        stored = releases.by_id(conn, target.release_id) if target else None
        run = runs.by_id(conn, stored.run_id) if stored else None
        current = _current(conn, environment)
        serving = releases.by_id(conn, current.release_id) if current else None
        guards = _guards(conn, environment, target, source, presser)
        ready = readiness(conn, environment, target)
    leaving: list[Commit] = []
    coming: list[Commit] = []
    if stored and serving:
        leaving = master.mirrors.commits(project, stored.sha, serving.sha, COMMITS_SHOWN)
        coming = master.mirrors.commits(project, serving.sha, stored.sha, COMMITS_SHOWN)
    before = deploys.from_json(current.description) if current else None
    changes = deploys.changes(before, deploys.from_json(target.description)) if target else []
    return Preview(project, environment, target, stored, run, current, guards, ready, leaving, coming, changes)


def readiness(conn: Connection, environment: Environment, target: Deployment | None) -> Readiness:
    """Say how ready the hosts are to go back to the release of a deployment; None = nothing served before."""
    promotable = target is not None and releases.by_id(conn, target.release_id).release.promotable
    identity = target.identity if target else None
    found = {host.host: rollbacks.readiness(_kept(host), identity, promotable=promotable) for host in environment.hosts}
    return rollbacks.worst(found) if found else rollbacks.readiness(None, identity, promotable=promotable)


def _kept(host: Placement) -> dict[str, dict[str, object]] | None:
    told = (host.observed or {}).get("kept")
    return None if told is None else {one["identity"]: one for one in told}


def before(conn: Connection, environment: Environment) -> Deployment | None:
    """Return the deployment that made an environment serve what it served before the present release, or None."""
    current = _current(conn, environment)
    if current is None:
        return None
    older = (one for one in deployments.done(conn, environment.id, _LOOKED_BACK) if one.id != current.id)
    return next((one for one in older if _is_older(one, current) and one.identity != current.identity), None)


def rollback(
    tx: Tx,
    master: Master,
    *,
    project: Project,
    environment: Environment,
    source: str,
    presser: Presser,
    note: str,
    key: str | None,
    now: int,
) -> str:
    """Start a rollback and return its deployment id; what serves again is described exactly as it was when it did.

    `key` makes a repeated press the same press. Raises NotFound, UsageError, or Refused with the code of the first
    guard that is not met.
    """
    known = deployments.by_id(tx.conn, key) if key else None
    if known is not None:
        if known.environment_id != environment.id or known.kind != "rollback":
            raise Refused("this idempotency key was used for something else; press again", code="key-reused")
        return known.id
    target = _target(tx.conn, project, environment, source)
    missing = unmet(_guards(tx.conn, environment, target, source, presser))
    if missing or target is None:
        raise Refused("; ".join(guard.sentence for guard in missing), code=missing[0].code)
    stored = releases.by_id(tx.conn, target.release_id)
    run_id = add_run(tx, master, environment, stored, environment.agents, FLOW, presser.name, "rolled back", now)
    wanted = dict.fromkeys(environment.agents, deploying.Wanted(stored, deploys.from_json(target.description)))
    group = jobs.of_run(tx.conn, run_id)
    deployment = deploying.add(
        tx, environment, group, wanted, kind="rollback", by=presser.name, now=now, note=note, key=key
    )
    dispatch.advance(tx, master, run_id, now)
    return deployment


def told_by_host(tx: Tx, master: Master, agent_id: int, body: messages.HostRollback, now: int) -> None:
    """Write down a rollback that a person did on the host; one that succeeded becomes what is expected to serve."""
    agent = agents.by_id(tx.conn, agent_id)
    placement = placements.of_service(tx.conn, agent.name, body.service, body.instance)
    environment = environments.by_id(tx.conn, placement.environment_id) if placement else None
    known = deployments.by_id(tx.conn, body.deployment)
    if known is not None and (known.agent_id != agent_id or known.phase != Phase.UNKNOWN):
        return  # told before, or another's
    identity = body.digest or body.image_id
    stored = releases.by_identity(tx.conn, environment.project_id, identity) if environment else None
    if environment is None or stored is None or not _is_description(body.description):
        data = {"service": one_line(body.service, 40), "identity": one_line(identity, 80)}
        events.add(tx, now, "host-rollback-unknown", actor=one_line(body.by, 60), agent_id=agent_id, data=data)
        return
    if known is None:
        known = _written(tx, master, agent, environment, stored, body, now)
    _end(tx, master, environment, known, body, now)


def add_run(
    tx: Tx,
    master: Master,
    environment: Environment,
    stored: StoredRelease,
    hosts: tuple[str, ...],
    flow: str,
    who: str,
    did: str,
    now: int,
) -> int:
    """Add the run that carries out a deployment of an earlier release to these hosts, and return its id."""
    project, built = projects.by_id(tx.conn, environment.project_id), runs.by_id(tx.conn, stored.run_id)
    why = f"{who} {did} {environment.name} to {project.name}#{built.number}"
    return several.add_run(tx, master, environment, stored, hosts, flow=flow, who=who, why=why, now=now)


def _target(conn: Connection, project: Project, environment: Environment, source: str) -> Deployment | None:
    """Return the deployment that a person wants back; for a release that never served here, None."""
    if not source:
        return before(conn, environment)
    identity = find_release(conn, project, source).release.identity
    found = deployments.done(conn, environment.id, _LOOKED_BACK)
    return next((one for one in found if one.identity == identity), None)


def _current(conn: Connection, environment: Environment) -> Deployment | None:
    return deployments.newest_current(conn, environment.hosts)


def _is_older(one: Deployment, current: Deployment) -> bool:
    return (one.finished_at or one.requested_at) <= (current.finished_at or current.requested_at)


def _guards(
    conn: Connection, environment: Environment, target: Deployment | None, source: str, presser: Presser
) -> tuple[Guard, ...]:
    return rollbacks.guards(facts_of(conn, environment, target, source, presser))


def facts_of(
    conn: Connection, environment: Environment, target: Deployment | None, source: str, presser: Presser
) -> rollbacks.Facts:
    """Return everything the rules look at; `source` is how a person named the target, "" = they did not."""
    current = _current(conn, environment)
    holding = deployments.holding(conn, environment.id)
    underway = f"a deployment to {environment.name} by {holding[0].requested_by} is not finished" if holding else None
    return rollbacks.Facts(
        environment=environment.name,
        hosts=tuple(host_of(conn, name) for name in environment.agents),
        person=presser.name,
        person_has_role=presser.has_role,
        approvers=environment.approved_by,
        person_in_group=bool(presser.groups & set(environment.approved_by)),
        named=bool(source),
        target=target.identity if target else source or None,
        was_done=target is not None,
        serving=current.identity if current else None,
        serving_is_rollback=current is not None and current.kind == "rollback",
        underway=underway,
        lock=locking.sentence(environment),
    )


def _written(
    tx: Tx,
    master: Master,
    agent: Agent,
    environment: Environment,
    stored: StoredRelease,
    body: messages.HostRollback,
    now: int,
) -> Deployment:
    """Add run, job and deployment of what a host did by itself."""
    who = one_line(body.by, 60)
    run_id = add_run(tx, master, environment, stored, (agent.name,), FLOW, who, "rolled back on the host:", now)
    group = jobs.of_run(tx.conn, run_id)
    wanted = {agent.name: deploying.Wanted(stored, deploys.from_json(body.description))}
    asked_at, note = min(body.asked_at, now), "on the host itself"
    deployment = deploying.add(
        tx, environment, group, wanted, kind="rollback", by=who, now=asked_at, note=note, key=body.deployment
    )
    made = _known(tx.conn, deployment)
    deployments.move(tx.conn, made, Phase.ACCEPTED, {"agent_id": agent.id, "accepted_at": made.requested_at})
    jobs.run(tx.conn, group[0].id, now)
    dispatch.advance(tx, master, run_id, now)
    return _known(tx.conn, deployment)


def _end(
    tx: Tx, master: Master, environment: Environment, deployment: Deployment, body: messages.HostRollback, now: int
) -> None:
    outcome = Phase(body.outcome)
    sentence = one_line(body.sentence, 2000)
    values: dict[str, Any] = {
        "phases": _phases(body),
        "reason_code": one_line(body.code, 40),
        "reason": sentence,
        "receipt": body.receipt or None,
        "log_tail": body.log_tail[-64 * 1024 :].replace("\0", ""),
        "finished_at": min(body.at, now),
    }
    placement = environment.host(deployment.host)
    if outcome == Phase.DONE:
        values["replaced_id"] = placement.current_id if placement else None
    deployments.move(tx.conn, deployment, outcome, values)
    if outcome == Phase.DONE:
        placements.set_current(tx.conn, environment.id, deployment.host, deployment.id)
    reason = Reason("outcome-unknown" if outcome == Phase.UNKNOWN else values["reason_code"], sentence)
    if outcome == Phase.UNKNOWN:
        jobs.wait(tx.conn, deployment.job_id, reason)
    else:
        jobs.finish(tx.conn, deployment.job_id, job_state_of(outcome), reason, now)
    data = {"outcome": body.outcome, "code": values["reason_code"], "identity": deployment.identity, "on_host": True}
    events.add_about(
        tx,
        now,
        f"deployment-{outcome.value}",
        environment,
        actor=deployment.requested_by,
        deployment=deployment.id,
        data=data,
    )
    dispatch.advance(tx, master, jobs.by_id(tx.conn, deployment.job_id).run_id, now)
    deploying.offer_waiting(tx, master, now)
    tx.after_commit(lambda: master.wakes.fire("events"))


def _phases(body: messages.HostRollback) -> list[dict[str, Any]]:
    """Return the phases as if they had been reported one by one."""
    at, told = body.asked_at, []
    durations = body.receipt.get("phases")
    for phase, seconds in list(durations.items())[:_MOST_PHASES] if isinstance(durations, dict) else ():
        told.append({"phase": one_line(str(phase), 40), "at": at, "detail": ""})
        at += int(seconds * 1_000_000) if isinstance(seconds, int | float) and 0 <= seconds < _A_DAY else 0
    return [*told, {"phase": body.outcome, "at": body.at, "detail": one_line(body.sentence, 2000)}]


def _is_description(data: dict[str, Any]) -> bool:
    try:
        deploys.from_json(data)
    except (KeyError, TypeError, ValueError):
        return False
    return True


def _known(conn: Connection, deployment_id: str) -> Deployment:
    found = deployments.by_id(conn, deployment_id)
    if found is None:
        raise LookupError(f"deployment {deployment_id} vanished within one transaction")
    return found
