"""Deployments as the master sees them: a job becomes one, waits for its turn, and its order is signed and sent.

What the agent says of it afterwards is written down by `deployment_reports`.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from sqlalchemy import Connection

from keepflow.core import deploys
from keepflow.core import silence as silences
from keepflow.core.flows import Container
from keepflow.core.patterns import branch_allowed
from keepflow.core.states import Phase, Reason, State
from keepflow.crypto import dsse
from keepflow.engine import (
    branches,
    breakglass,
    carried,
    confiding,
    evidence,
    locking,
    sending,
)
from keepflow.engine.context import Master
from keepflow.store import (
    agents,
    deployments,
    environments,
    events,
    jobs,
    outgoing,
    projects,
    releases,
    runs,
)
from keepflow.store import breakglass as broken
from keepflow.store.breakglass import BrokenGlass
from keepflow.store.deployments import Deployment
from keepflow.store.environments import Environment
from keepflow.store.jobs import Job
from keepflow.store.preparations import Preparation
from keepflow.store.releases import StoredRelease
from keepflow.store.runs import Run
from keepflow.store.writer import Tx
from keepflow.wire import messages, orders

#: An order not accepted within this time is void; a fresh one is made when the agent is back.
ORDER_LIFE = 10 * 60 * 1_000_000
#: What an agent is asked to do, by the kind of deployment; all others are plain deploys.
_ACTIONS: dict[str, Literal["deploy", "rollback", "adopt", "stage", "rehearse", "remove"]] = {
    "rollback": "rollback",
    "adopt": "adopt",
    "stage": "stage",
    "rehearsal": "rehearse",
    "removal": "remove",
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a host is to serve: a release, and the description of an earlier deployment when it is to be as it was."""

    release: StoredRelease
    described: Container | None = None


def start(tx: Tx, master: Master, job: Job, now: int) -> None:
    """Turn a ready deploy job and those of its other hosts into deployments and offer what may go now.

    Fails the job with the rule that forbids it.
    """
    run = runs.by_id(tx.conn, job.run_id)
    if deployments.of_job(tx.conn, job.id) is None:
        group = group_of(tx.conn, job)
        found = _admit(tx.conn, run, job, group, now)
        if isinstance(found, Reason):
            jobs.finish(tx.conn, job.id, State.FAILED, found, now)
            tx.after_commit(lambda: master.wakes.fire(f"run:{run.id}"))
            return
        environment, release = found
        wanted = dict.fromkeys(environment.agents, Wanted(release))
        add(tx, environment, group, wanted, kind="deploy", by=run.actor or "keepflow", now=now)
    offer_waiting(tx, master, now)


def group_of(conn: Connection, job: Job) -> list[Job]:
    """List the jobs that carry one deploy to every host of its environment, in the order in which they are switched."""
    group = job.spec["group"]
    return [found for found in jobs.of_run(conn, job.run_id) if found.spec["group"] == group] if group else [job]


def add(
    tx: Tx,
    environment: Environment,
    group: Sequence[Job],
    wanted: Mapping[str, Wanted],
    *,
    kind: str,
    by: str,
    now: int,
    note: str = "",
    key: str | None = None,
    canary: dict[str, Any] | None = None,
) -> str:
    """Write the deployments of one group down, one for each host; nothing is sent yet.

    `wanted` says what each host is to serve. `key` is the asker's idempotency key and becomes the id of the first
    deployment, which is returned. Each is asked for a microsecond after the one before: lists keep the order of hosts.
    """
    ids = [key or secrets.token_hex(16), *(secrets.token_hex(16) for _ in group[1:])]
    for index, job in enumerate(group):
        asked = {"id": ids[index], "kind": kind, "requested_by": by, "note": note, "requested_at": now + index}
        asked["canary"] = canary
        _add(tx, environment, job, wanted[job.spec["host"]], asked)
    return ids[0]


def _add(tx: Tx, environment: Environment, job: Job, wanted: Wanted, asked: dict[str, Any]) -> None:
    release = wanted.release
    description = wanted.described or deploys.resolve(release.container, environment.overrides)
    placement = environment.host(job.spec["host"])
    current = deployments.by_id(tx.conn, placement.current_id) if placement and placement.current_id else None
    before = deploys.from_json(current.description) if current else None
    deployments.add(
        tx.conn,
        {
            **asked,
            "environment_id": environment.id,
            "release_id": release.id,
            "job_id": job.id,
            "host": job.spec["host"],
            "phase": Phase.QUEUED.value,
            "description": deploys.to_json(description),
            "description_hash": deploys.description_hash(description),
            "changes": [asdict(change) for change in deploys.changes(before, description)],
            "identity": release.release.identity,
            "identity_before": current.identity if current else None,
        },
    )
    data = {"kind": asked["kind"], "note": asked["note"], "host": job.spec["host"]}
    at, by = asked["requested_at"], asked["requested_by"]
    events.add_about(tx, at, "deployment-requested", environment, actor=by, deployment=asked["id"], data=data)


def offer_waiting(tx: Tx, master: Master, now: int) -> None:
    """Offer every deployment that may go now; the others get the sentence they wait by."""
    for deployment in deployments.unsent(tx.conn):
        environment = environments.by_id(tx.conn, deployment.environment_id)
        reason = _waits(tx.conn, deployment, environment)
        if reason is not None:
            jobs.wait(tx.conn, deployment.job_id, reason)
        elif deployment.phase == Phase.QUEUED or _order_died_on_the_way(tx.conn, deployment, now):
            _offer(tx, master, deployment, environment, now)


def ask_again(tx: Tx, master: Master, agent_id: int, held: Collection[int], now: int) -> None:
    """Send orders again that an agent once had and holds no more: it answers how they stand, and runs none twice.

    An agent holds a deployment until the master has confirmed its end, so this master has forgotten what it was told.
    """
    for deployment in deployments.sent_to(tx.conn, agent_id):
        fence, envelope = deployment.fence, deployment.order
        if fence is None or envelope is None or fence in held or outgoing.is_waiting(tx.conn, fence):
            continue
        body = messages.Deploy(fence=fence, deployment=deployment.id, envelope=envelope)
        sending.send(tx, master, agent_id, body, now)
        environment = environments.by_id(tx.conn, deployment.environment_id)
        events.add_about(tx, now, "deployment-asked-again", environment, deployment=deployment.id)


def silence(conn: Connection, deployment: Deployment, now: int) -> str | None:
    """Say for how long nothing was heard of the agent that has a deployment, and in what phase it was last."""
    agent = agents.by_id(conn, deployment.agent_id) if deployment.agent_id is not None else None
    if agent is None:
        return None
    quiet = now - max(agent.last_seen_at or 0, *(phase["at"] for phase in deployment.phases[-1:]), 0)
    return silences.silence(agent.name, deployment.phase, connected=agent.connected, quiet=quiet)


def withdraw(conn: Connection, job: Job, reason: Reason, now: int) -> bool:
    """Take a deployment back that no agent was sent; False when it is too late for that."""
    deployment = deployments.of_job(conn, job.id)
    if deployment is None:
        return True
    if deployment.phase != Phase.QUEUED:
        return False
    values = {"reason_code": reason.code, "reason": reason.sentence, "finished_at": now}
    return deployments.move(conn, deployment, Phase.FAILED, values)


def _admit(
    conn: Connection, run: Run, job: Job, group: list[Job], now: int
) -> tuple[Environment, StoredRelease] | Reason:
    project = projects.by_id(conn, run.project_id)
    target = job.spec["target"]
    environment = environments.by_name(conn, run.project_id, target)
    if environment is None:
        names = ", ".join(found.name for found in environments.of_project(conn, run.project_id)) or "none"
        return Reason("no-environment", f"{project.name} has no environment {target}; there are: {names}")
    if environment.promote_from is not None:
        sentence = f"nothing deploys to {target} but a promote from {environment.promote_from}"
        return Reason("promote-only", f"{sentence}: keepflow promote --run {run.number} --to {target}")
    branch = run.ref.removeprefix("refs/heads/")
    if not (run.ref.startswith("refs/heads/") and branch_allowed(environment.branches, branch)):
        allowed = ", ".join(environment.branches) or "no branch"
        return Reason("branch-not-allowed", f"{target} takes {allowed}, and this run is of {run.ref}")
    hosts = tuple(found.spec["host"] for found in group)
    if gone := [host for host in hosts if environment.host(host) is None]:
        named = gone[0] or "one that was not set up"
        return Reason("no-host", f"{target} went to other hosts after this run was made ({named}); run it again")
    release = releases.choose(carried.releases_of(conn, run), hosts)
    if release is None:
        return Reason(
            "no-release",
            f"no step of this run named an image that agent {', '.join(hosts)} can deploy: "
            "a script must write image=NAME or pushed=NAME to the file $KEEPFLOW_OUTPUT",
        )
    if job.spec["per_branch"]:
        own = branches.of_branch(conn, environment, run.ref, now)
        if isinstance(own, Reason):
            return own
        environment = own
    lacking = confiding.missing(conn, environment, deploys.resolve(release.container, environment.overrides))
    if lacking is not None:
        return Reason("secret-missing", lacking)
    return environment, release


def _waits(conn: Connection, deployment: Deployment, environment: Environment) -> Reason | None:
    first = deployments.holding(conn, environment.id)[0]
    owner = runs.by_id(conn, jobs.by_id(conn, first.job_id).run_id)
    if owner.id != jobs.by_id(conn, deployment.job_id).run_id:
        name = f"{projects.by_id(conn, owner.project_id).name}#{owner.number}"
        if first.phase == Phase.UNKNOWN:
            sentence = f"{environment.name} is locked: the outcome of {name} is not known yet ({first.reason})"
            return Reason("outcome-unknown", sentence)
        return Reason("deploy-under-way", f"waits for {name}, which is deploying to {environment.name}")
    if _held_by_lock(conn, deployment, environment):
        return Reason("locked", locking.sentence(environment) or "")
    host = deployment.host
    agent = agents.by_name(conn, host)
    if agent is None or agent.revoked_at is not None:
        return Reason("agent-missing", f"agent {host} has not joined: keepflow agent token {host}")
    if not agent.connected:
        return Reason("agent-offline", f"agent {host} is not connected")
    if "deploy" not in agent.capabilities:
        return Reason("agent-cannot", f"agent {host} does not have the capability deploy")
    return None


def _held_by_lock(conn: Connection, deployment: Deployment, environment: Environment) -> bool:
    """Say whether a lock keeps an order back.

    Who promoted after the lock has answered for it at the press; what has begun on one host goes on to the others.
    """
    if environment.locked_at is None or deployment.phase is not Phase.QUEUED:
        return False
    if deployment.kind != "deploy" and deployment.requested_at >= environment.locked_at:
        return False
    group = deployments.of_run(conn, jobs.by_id(conn, deployment.job_id).run_id)
    return all(found.phase is Phase.QUEUED for found in group if found.environment_id == environment.id)


def _order_died_on_the_way(conn: Connection, deployment: Deployment, now: int) -> bool:
    fence = deployment.fence
    if fence is None or not outgoing.is_waiting(conn, fence) or outgoing.was_received(conn, fence):
        return False
    sent = next((phase["at"] for phase in reversed(deployment.phases) if phase["phase"] == Phase.OFFERED.value), now)
    return bool(now - sent > ORDER_LIFE * 9 // 10)


def _offer(tx: Tx, master: Master, deployment: Deployment, environment: Environment, now: int) -> None:
    agent = agents.by_name(tx.conn, deployment.host)
    if agent is None:
        raise LookupError(f"agent {deployment.host} vanished between two reads of one transaction")
    if deployment.fence is not None:
        outgoing.withdraw(tx.conn, deployment.fence)
        jobs.finish_attempt(
            tx.conn, deployment.fence, State.LOST, Reason("order-expired", "the order was never taken"), now
        )
    attempt = jobs.add_attempt(tx.conn, deployment.job_id, agent.id, now)
    confided = confide(tx.conn, master, deployment, environment, agent, attempt.fence)
    signed = order(tx.conn, master, deployment, environment, agent, attempt.fence, now, confided)
    payload = deploys.canonical(signed.model_dump(mode="json"))
    envelope = dsse.seal(payload, orders.PAYLOAD_TYPE, master.order_key)
    body = messages.Deploy(fence=attempt.fence, deployment=deployment.id, envelope=envelope, secrets=confided.sealed)
    sending.send(tx, master, agent.id, body, now)
    phases = [*deployment.phases, {"phase": Phase.OFFERED.value, "at": now, "detail": f"order sent to {agent.name}"}]
    values = {"agent_id": agent.id, "fence": attempt.fence, "order": envelope, "phases": phases}
    deployments.move(tx.conn, deployment, Phase.OFFERED, values)
    jobs.wait(tx.conn, deployment.job_id, Reason("offered", f"the order is on its way to agent {agent.name}"))


def confide(
    conn: Connection,
    master: Master,
    deployment: Deployment | Preparation,
    environment: Environment,
    agent: agents.Agent,
    fence: int,
) -> confiding.Travelling:
    """Seal what an order's new container reads to the agent; an order that makes no container brings no secret."""
    names = (
        ()
        if _ACTIONS.get(deployment.kind) in ("adopt", "stage", "remove")
        else deployment.description.get("secrets", ())
    )
    base = environments.base_of(conn, environment)
    return confiding.travelling(conn, master, base, agent, deployment.id, fence, names)


def order(
    conn: Connection,
    master: Master,
    deployment: Deployment | Preparation,
    environment: Environment,
    agent: agents.Agent,
    fence: int,
    now: int,
    confided: confiding.Travelling,
) -> orders.DeployOrder:
    """Return the order of a deployment or preparation on one host, not signed yet."""
    stored = releases.by_id(conn, deployment.release_id)
    project = projects.by_id(conn, environment.project_id)
    release = stored.release
    promoted = deployment.kind in ("promote", "rollback")
    broken_glass = _broken_glass(conn, deployment) if isinstance(deployment, Deployment) else None
    placement = environment.host(deployment.host)
    canary = deployment.canary if isinstance(deployment, Deployment) else None
    return orders.DeployOrder(
        action=_ACTIONS.get(deployment.kind, "deploy"),
        deployment=deployment.id,
        agent=agent.name,
        agent_key=agent.key_id,
        environment=f"{project.name}/{environments.base_of(conn, environment).name}",
        service=environment.service,
        instance=environment.instance,
        image=orders.OrderImage(
            origin="registry" if release.promotable else "local",
            repository=release.repository,
            image_id=release.image_id,
            digest=release.digest,
        ),
        description=deployment.description,
        description_hash=deployment.description_hash,
        receipts=tuple(receipt.envelope for receipt in evidence.of_release(conn, master, stored).receipts),
        secrets=confided.named,
        evidence=evidence.wanted(deployment, environment, outside_rules=broken_glass is not None),
        fence=fence,
        expect_current=placement.identity if promoted and placement else None,
        issued_at=now,
        expires_at=now + ORDER_LIFE,
        nonce=secrets.token_hex(16),
        approver=breakglass.approver(deployment.requested_by, broken_glass),
        canary=(canary or {}).get("steps", ()),
        canary_hold=(canary or {}).get("hold", 0),
    )


def _broken_glass(conn: Connection, deployment: Deployment) -> BrokenGlass | None:
    group = deployments.of_run(conn, jobs.by_id(conn, deployment.job_id).run_id)
    return broken.of_deployments(conn, [found.id for found in group])
