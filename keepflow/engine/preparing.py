"""Getting hosts ready for a promote: images laid there when a release passed its test, and rehearsals on request.

Neither is a deployment: nothing here changes what is expected to serve, nothing here holds a later promote back.
"""

from __future__ import annotations

import secrets

from sqlalchemy import Connection

from keepflow.core import deploys, rollbacks
from keepflow.core.promoting import Guard, unmet
from keepflow.core.states import OUTCOMES, Phase
from keepflow.core.text import one_line
from keepflow.crypto import dsse
from keepflow.engine import deploying, rolling_back, sending
from keepflow.engine.context import Master
from keepflow.engine.guarding import Presser
from keepflow.engine.promoting import find_release
from keepflow.errors import Refused
from keepflow.store import (
    agents,
    counters,
    deployments,
    environments,
    events,
    placements,
    preparations,
    projects,
    releases,
)
from keepflow.store.agents import Agent
from keepflow.store.environments import Environment
from keepflow.store.preparations import REHEARSAL, REMOVAL, STAGE, Preparation
from keepflow.store.releases import StoredRelease
from keepflow.store.writer import Tx
from keepflow.wire import messages, orders


def stage_onwards(
    tx: Tx, master: Master, source: Environment, stored: StoredRelease, now: int, *, by_person: bool
) -> None:
    """Lay a release that passed in one environment on the hosts of those that promote from there.

    `by_person`: a person marked it tested, which those with `verified_by` wait for.
    """
    if not stored.release.promotable:
        return
    for place in environments.of_project(tx.conn, source.project_id):
        if place.promote_from == source.name and (by_person or not place.verified_by):
            missing = [host for host in place.agents if not _is_there(tx.conn, place, host, stored.release.identity)]
            add(tx, master, place, stored, missing, STAGE, "keepflow", None, now)


def after(tx: Tx, master: Master, deployment_id: str, now: int) -> None:
    """Lay a release on the next hosts once it has served, where nobody must mark it tested first."""
    done = deployments.by_id(tx.conn, deployment_id)
    if done is None or done.phase != Phase.DONE or done.kind not in ("deploy", "promote"):
        return
    source = environments.by_id(tx.conn, done.environment_id)
    stage_onwards(tx, master, source, releases.by_id(tx.conn, done.release_id), now, by_person=False)


def rehearse(
    tx: Tx, master: Master, *, environment: Environment, source: str, presser: Presser, key: str | None, now: int
) -> str:
    """Start a rehearsal of a release on every host of an environment and return the id of the first.

    Raises NotFound, UsageError, or Refused with the code of the first guard that is not met.
    """
    known = preparations.by_id(tx.conn, key) if key else None
    if known is not None:
        if known.environment_id != environment.id:
            raise Refused("this idempotency key was used for something else; press again", code="key-reused")
        return known.id
    stored = find_release(tx.conn, projects.by_id(tx.conn, environment.project_id), source)
    missing = unmet(guards(tx.conn, environment, stored, presser))
    if missing:
        raise Refused("; ".join(guard.sentence for guard in missing), code=missing[0].code)
    return add(tx, master, environment, stored, list(environment.agents), REHEARSAL, presser.name, key, now)


def guards(conn: Connection, environment: Environment, stored: StoredRelease, presser: Presser) -> tuple[Guard, ...]:
    """Check every rule of a rehearsal."""
    going_on = preparations.live(conn, environment.id, REHEARSAL)
    why_not = deploys.cannot_run_twice(deploys.resolve(stored.container, environment.overrides))
    pushed = stored.release.promotable
    return (
        Guard("origin", pushed, "the registry holds this digest" if pushed else "it was never pushed to a registry"),
        Guard("cannot-run-twice", why_not is None, why_not or "it may run beside the one that serves"),
        Guard("rehearsing", not going_on, "a rehearsal is under way" if going_on else "no rehearsal is under way"),
        *rollbacks.may_act(rolling_back.facts_of(conn, environment, None, "", presser)),
    )


def offer(tx: Tx, master: Master, agent: Agent, now: int) -> None:
    """Send an agent that is connected what it is still to prepare."""
    if not agent.connected or agent.revoked_at is not None:
        return
    for preparation in reversed(preparations.waiting(tx.conn, agent.name)):
        environment = environments.by_id(tx.conn, preparation.environment_id)
        fence = counters.next_value(tx.conn, counters.FENCE)
        confided = deploying.confide(tx.conn, master, preparation, environment, agent, fence)
        order = deploying.order(tx.conn, master, preparation, environment, agent, fence, now, confided)
        envelope = dsse.seal(deploys.canonical(order.model_dump(mode="json")), orders.PAYLOAD_TYPE, master.order_key)
        body = messages.Deploy(fence=fence, deployment=preparation.id, envelope=envelope, secrets=confided.sealed)
        sending.send(tx, master, agent.id, body, now)
        preparations.move(tx.conn, preparation, Phase.OFFERED, {"agent_id": agent.id, "fence": fence})


def report(tx: Tx, master: Master, agent_id: int, body: messages.Message, now: int) -> bool:
    """Write down what an agent says of a preparation; False when it speaks of something else."""
    if not isinstance(body, messages.DeployAnswer | messages.DeployPhase | messages.DeployFinished):
        return False
    found = preparations.by_id(tx.conn, body.deployment)
    if found is None:
        return False
    if found.agent_id != agent_id or found.fence != body.fence or found.phase in OUTCOMES:
        return True
    if isinstance(body, messages.DeployPhase):
        phase = Phase(body.phase) if body.phase in set(Phase) - OUTCOMES else found.phase
        preparations.move(tx.conn, found, phase, {"reason": one_line(body.detail, 300)})
    elif isinstance(body, messages.DeployFinished):
        outcome = Phase.DONE if body.outcome == "done" else Phase.FAILED
        _end(tx, found, outcome, body.code, body.sentence, now, receipt=body.receipt or None, tail=body.log_tail)
    elif not body.accepted:
        _end(tx, found, Phase.FAILED, body.code, f"the agent refused: {body.sentence}", now)
    tx.after_commit(lambda: master.wakes.fire("events"))
    return True


def on_host(conn: Connection, environment: Environment, stored: StoredRelease) -> list[str]:
    """List the hosts of an environment that have a release's image on their disk already."""
    identity = stored.release.identity
    return [host for host in environment.agents if _is_there(conn, environment, host, identity, told=True)]


def rehearsed(conn: Connection, environment: Environment, stored: StoredRelease) -> list[Preparation]:
    """List the newest rehearsal of a release on each host of an environment."""
    found = preparations.of_release(conn, environment.id, stored.release.identity)
    newest: dict[str, Preparation] = {}
    for one in found:
        if one.kind == REHEARSAL:
            newest.setdefault(one.host, one)
    return [newest[host] for host in environment.agents if host in newest]


def loses_hot(environment: Environment) -> bool:
    """Say whether a rehearsal would take the slot of a container kept hot for a rollback."""
    return any(one["how"] == "hot" for host in environment.hosts for one in ((host.observed or {}).get("kept") or ()))


def add(
    tx: Tx,
    master: Master,
    environment: Environment,
    stored: StoredRelease,
    hosts: list[str],
    kind: str,
    by: str,
    key: str | None,
    now: int,
) -> str:
    """Have something prepared on hosts and return the id of the first; sent at once to agents that are connected."""
    description = deploys.resolve(stored.container, environment.overrides)
    ids = [key or secrets.token_hex(16), *(secrets.token_hex(16) for _ in hosts[1:])]
    for preparation, host in zip(ids, hosts, strict=False):
        values = {
            "id": preparation,
            "environment_id": environment.id,
            "release_id": stored.id,
            "host": host,
            "kind": kind,
            "phase": Phase.QUEUED.value,
            "requested_by": by,
            "description": deploys.to_json(description),
            "description_hash": deploys.description_hash(description),
            "identity": stored.release.identity,
            "requested_at": now,
        }
        preparations.add(tx.conn, values)
        agent = agents.by_name(tx.conn, host)
        if agent is not None:
            offer(tx, master, agent, now)
    return ids[0]


def _is_there(conn: Connection, environment: Environment, host: str, identity: str, *, told: bool = False) -> bool:
    """Say whether a host has an image; unless only what it `told` counts, one that is on its way counts, too."""
    placement = environment.host(host)
    observed = (placement.observed if placement else None) or {}
    kept = {one["identity"] for one in observed.get("kept") or () if one["how"] != "gone"}
    if identity in kept or observed.get("identity") == identity:
        return True
    return not told and any(
        one.host == host and one.phase not in OUTCOMES
        for one in preparations.of_release(conn, environment.id, identity)
    )


def _end(
    tx: Tx,
    found: Preparation,
    outcome: Phase,
    code: str,
    sentence: str,
    now: int,
    *,
    receipt: dict[str, object] | None = None,
    tail: str = "",
) -> None:
    values = {
        "reason_code": one_line(code, 40),
        "reason": one_line(sentence, 2000),
        "receipt": receipt,
        "log_tail": tail[-64 * 1024 :].replace("\0", ""),
        "finished_at": now,
    }
    preparations.move(tx.conn, found, outcome, values)
    environment = environments.by_id(tx.conn, found.environment_id)
    data = {"preparation": found.id, "outcome": outcome.value, "identity": found.identity, "host": found.host}
    if found.kind == REMOVAL and outcome == Phase.DONE:
        _removed(tx, environment, now)
    kind = f"{found.kind}-{outcome.value}"
    events.add_about(tx, now, kind, environment, actor=found.requested_by, data=data)


def _removed(tx: Tx, environment: Environment, now: int) -> None:
    """Take an instance off the board that is gone from its last host, unless somebody deploys to it again."""
    waits = preparations.live(tx.conn, environment.id, REMOVAL) or deployments.holding(tx.conn, environment.id)
    if not waits:
        environments.remove(tx.conn, environment.id, now)
        placements.forget(tx.conn, environment.id)
