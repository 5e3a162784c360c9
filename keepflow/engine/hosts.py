"""Environments on several hosts: what follows when one of them fails.

The hosts that were not begun stay as they are. Those that were switched are put back to what they served, by a run of
its own, before anything else goes to the environment. A rollback that fails is never rolled back.
"""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy import Connection

from keepflow.core import deploys
from keepflow.core.events import Event, EventKind
from keepflow.core.flows import JobKind, Plan, PlannedJob
from keepflow.core.planning import Hosts, spread
from keepflow.core.states import LIVE, Phase, Reason, State
from keepflow.engine import deploying, dispatch
from keepflow.engine import runs as engine_runs
from keepflow.engine.context import Master
from keepflow.store import deployments, environments, events, jobs, projects, releases, runs
from keepflow.store.deployments import HOLDING, Deployment
from keepflow.store.environments import Environment
from keepflow.store.jobs import Job
from keepflow.store.releases import StoredRelease
from keepflow.store.writer import Tx

#: Name of the flow that carries out rollbacks, and who asks for those that nobody pressed.
FLOW, MASTER = "rollback", "keepflow"


def follow(tx: Tx, master: Master, job: Job, now: int) -> None:
    """Do what follows from the state of one host's deployment for the other hosts of its environment.

    May be called at any time and any number of times.
    """
    group = deploying.group_of(tx.conn, job)
    failed = next((found for found in group if found.state == State.FAILED), None)
    if failed is None or len(group) == 1:
        return
    reason = _stopped_after(tx.conn, failed)
    for other in (one for one in group if one.state in LIVE and one.spec["when"] != "always"):
        if deploying.withdraw(tx.conn, other, reason, now):
            jobs.finish(tx.conn, other.id, State.SKIPPED, reason, now)
    tries = [found for found in (deployments.of_job(tx.conn, one.id) for one in group) if found is not None]
    if any(found.phase in HOLDING for found in tries):
        return
    environment = environments.by_id(tx.conn, tries[0].environment_id)
    switched = [found for found in tries if found.phase == Phase.DONE and _still_serves(environment, found)]
    if switched and tries[0].kind != "rollback" and environment.on_failure == "revert":
        _put_back(tx, master, environment, switched, failed, now)


def _stopped_after(conn: Connection, failed: Job) -> Reason:
    return Reason("stopped-after", f"stopped after {_name(conn, failed)} failed on {failed.spec['host']}; not touched")


def _name(conn: Connection, job: Job) -> str:
    run = runs.by_id(conn, job.run_id)
    return f"{projects.by_id(conn, run.project_id).name}#{run.number}"


def _still_serves(environment: Environment, deployment: Deployment) -> bool:
    placement = environment.host(deployment.host)
    return placement is not None and placement.current_id == deployment.id


def _put_back(
    tx: Tx, master: Master, environment: Environment, switched: list[Deployment], failed: Job, now: int
) -> None:
    """Start the run that brings hosts back to what they served; a host that served nothing keeps the new release."""
    earlier = {found.host: _served_before(tx.conn, found) for found in switched}
    wanted = {host: found for host, found in earlier.items() if found is not None}
    why = f"{_name(tx.conn, failed)} failed on {failed.spec['host']}"
    kept = [host for host in earlier if host not in wanted]
    if kept:
        sentence = f"{why}; {', '.join(kept)} served nothing before and cannot be put back"
        data = {"hosts": kept, "sentence": sentence}
        events.add_about(tx, now, "hosts-kept", environment, data=data)
    if not wanted or _asked_before(tx.conn, environment, switched):
        return
    hosts, first = tuple(wanted), next(iter(wanted.values())).release
    told = f"{why}; {', '.join(hosts)} {'goes' if len(hosts) == 1 else 'go'} back to what served before"
    run_id = add_run(tx, master, environment, first, hosts, flow=FLOW, who=MASTER, why=told, now=now, when="always")
    group = jobs.of_run(tx.conn, run_id)
    deploying.add(tx, environment, group, wanted, kind="rollback", by=MASTER, now=now, note=why)
    dispatch.advance(tx, master, run_id, now)


def _served_before(conn: Connection, deployment: Deployment) -> deploying.Wanted | None:
    before = deployments.by_id(conn, deployment.replaced_id) if deployment.replaced_id else None
    if before is None:
        return None
    return deploying.Wanted(releases.by_id(conn, before.release_id), deploys.from_json(before.description))


def _asked_before(conn: Connection, environment: Environment, switched: list[Deployment]) -> bool:
    """Say whether these hosts are being put back already, or were."""
    asked = switched[0].requested_at
    found = deployments.of_host(conn, environment.id, switched[0].host, 20)
    return any(one.kind == "rollback" and one.requested_at > asked for one in found)


def add_run(
    tx: Tx,
    master: Master,
    environment: Environment,
    stored: StoredRelease,
    hosts: tuple[str, ...],
    *,
    flow: str,
    who: str,
    why: str,
    now: int,
    when: str = "success",
) -> int:
    """Add a run with one deploy to each of these hosts, in batches, and return its id.

    With `when` "always" a host that fails keeps none of the others from its turn.
    """
    project, built = projects.by_id(tx.conn, environment.project_id), runs.by_id(tx.conn, stored.run_id)
    job = PlannedJob(key=f"deploy-{environment.name}", kind=JobKind.DEPLOY, target=environment.name)
    plan = Plan(flow=flow, jobs=(job,), concurrency=dispatch.PARALLEL)
    plan = spread(plan, {environment.name: Hosts(hosts, environment.max_unavailable)})
    plan = replace(plan, jobs=tuple(replace(one, when=when) for one in plan.jobs))
    event = Event(kind=EventKind.MANUAL, ref=built.ref, sha=built.sha, message=built.message, actor=who)
    return engine_runs.add(tx, master, project, event, plan, trust=built.trust, why=why, now=now)
