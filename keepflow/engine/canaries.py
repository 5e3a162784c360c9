"""Steering a canary that is under way: a signed word to the hosts that are at it; they go on without one as well."""

from __future__ import annotations

from typing import Literal

from keepflow.core import canary, deploys
from keepflow.core.states import Phase
from keepflow.crypto import dsse
from keepflow.engine import sending
from keepflow.engine.context import Master
from keepflow.errors import Refused
from keepflow.store import agents, deployments, events
from keepflow.store.deployments import Deployment
from keepflow.store.environments import Environment
from keepflow.store.writer import Tx
from keepflow.wire import messages, orders

Word = Literal["continue", "hold", "abort"]
_LIFE = 5 * 60 * 1_000_000  #: microseconds after which a word that did not arrive is void


def step(deployment: Deployment) -> int | None:
    """Return the percent of visitors that get a new release now, or None when no canary is under way."""
    if deployment.phase != Phase.CANARY:
        return None
    told = (phase["detail"] for phase in reversed(deployment.phases) if phase["phase"] == Phase.CANARY.value)
    return next((found for detail in told if (found := canary.step_of(detail)) is not None), None)


def steer(
    tx: Tx, master: Master, environment: Environment, word: Word, percent: int | None, by: str, now: int
) -> list[str]:
    """Send a word to every host of an environment whose canary is at that step (None: at any); return their names.

    Raises Refused `no-canary` when none is.
    """
    found = [one for one in deployments.holding(tx.conn, environment.id) if one.phase == Phase.CANARY]
    meant = [one for one in found if percent is None or word == "abort" or step(one) == percent]
    if not meant:
        at = f" at {percent} %" if percent is not None and found else ""
        raise Refused(f"no canary is under way in {environment.name}{at}", code="no-canary")
    for deployment in meant:
        _send(tx, master, deployment, word, by, now)
        data = {"word": word, "percent": step(deployment), "host": deployment.host}
        events.add_about(tx, now, "canary-steered", environment, actor=by, deployment=deployment.id, data=data)
    return [deployment.host for deployment in meant]


def _send(tx: Tx, master: Master, deployment: Deployment, word: Word, by: str, now: int) -> None:
    if deployment.agent_id is None or deployment.fence is None:
        raise LookupError(f"deployment {deployment.id} is in a phase of its agent and has none")
    agent = agents.by_id(tx.conn, deployment.agent_id)
    order = orders.CanaryOrder(
        word=word,
        percent=step(deployment),
        deployment=deployment.id,
        fence=deployment.fence,
        agent=agent.name,
        agent_key=agent.key_id,
        by=by,
        issued_at=now,
        expires_at=now + _LIFE,
    )
    envelope = dsse.seal(deploys.canonical(order.model_dump(mode="json")), orders.CANARY_TYPE, master.order_key)
    body = messages.Steer(fence=deployment.fence, deployment=deployment.id, envelope=envelope)
    sending.send(tx, master, agent.id, body, now)
