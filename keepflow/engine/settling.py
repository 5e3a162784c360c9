"""A deployment whose end nobody knows, settled by a person who looked: what serves, and how they know."""

from __future__ import annotations

from typing import Any, Literal

from keepflow.core.states import TOUCHED, Phase, Reason, job_state_of
from keepflow.core.text import one_line
from keepflow.engine import deploying, dispatch, hosts
from keepflow.engine.context import Master
from keepflow.errors import NotFound, Refused, UsageError
from keepflow.store import deployments, environments, events, jobs, placements
from keepflow.store.deployments import Deployment
from keepflow.store.environments import Environment
from keepflow.store.writer import Tx

Serves = Literal["new", "old"]
_WHY = 2000


def settle(
    tx: Tx, master: Master, place: Environment, host: str, serves: Serves, why: str, by: str, now: int
) -> Deployment:
    """End the unknown deployment of an environment, on this host ("": the only one), as a person says it ended.

    `serves` is "new", the release that was deployed, or "old", what served before. Nothing is sent to the host, and
    nothing counts as tested by it. Raises UsageError, NotFound, and Refused (`contradicted`: the host says otherwise).
    """
    if not why.strip():
        raise UsageError("say what serves there and how you know", code="no-reason")
    environment = environments.by_id(tx.conn, place.id)
    unknown = _unknown(tx, environment, host)
    _believe(environment, unknown, serves)
    outcome = Phase.DONE if serves == "new" else Phase.REVERTED if _was_touched(unknown) else Phase.FAILED
    sentence = f"settled by {by}, the {serves} release serves: {one_line(why, _WHY)}"
    values: dict[str, Any] = {
        "phases": [*unknown.phases, {"phase": outcome.value, "at": now, "detail": sentence}],
        "reason_code": "settled",
        "reason": sentence,
    }
    if outcome is Phase.DONE:
        placement = environment.host(unknown.host)
        values["replaced_id"] = placement.current_id if placement else None
        placements.set_current(tx.conn, environment.id, unknown.host, unknown.id)
    deployments.move(tx.conn, unknown, outcome, values)
    _end_job(tx, master, unknown, outcome, Reason("settled", sentence), now)
    data = {"serves": serves, "why": one_line(why, _WHY), "outcome": outcome.value, "host": unknown.host}
    events.add_about(tx, now, "deployment-settled", environment, actor=by, deployment=unknown.id, data=data)
    tx.after_commit(lambda: master.wakes.fire("events"))
    return unknown


def _unknown(tx: Tx, environment: Environment, host: str) -> Deployment:
    found = [one for one in deployments.holding(tx.conn, environment.id) if one.phase == Phase.UNKNOWN]
    meant = [one for one in found if host in ("", one.host)]
    if not meant:
        where = f" on {host[:40]}" if host else ""
        raise NotFound(f"{environment.name} has no deployment{where} whose end is unknown", code="nothing-unknown")
    if len(meant) > 1:
        names = ", ".join(one.host for one in meant)
        raise UsageError(f"name the host: the ends on {names} are unknown", code="which-host")
    return meant[0]


def _believe(environment: Environment, unknown: Deployment, serves: Serves) -> None:
    """Refuse what the host itself says otherwise: its own eyes are nearer than anybody's."""
    placement = environment.host(unknown.host)
    observed = (placement.observed if placement else None) or {}
    if observed.get("busy"):
        raise Refused(f"{unknown.host} says it is still deploying; wait until it has ended", code="busy")
    said, meant = observed.get("identity"), unknown.identity if serves == "new" else unknown.identity_before
    if said and said != meant and said in (unknown.identity, unknown.identity_before):
        raise Refused(
            f"{unknown.host} says that {said[:19]} serves, which is not the {serves} one", code="contradicted"
        )


def _was_touched(deployment: Deployment) -> bool:
    return any(phase["phase"] in TOUCHED for phase in deployment.phases)


def _end_job(tx: Tx, master: Master, unknown: Deployment, outcome: Phase, reason: Reason, now: int) -> None:
    state = job_state_of(outcome)
    if unknown.fence is not None:
        jobs.finish_attempt(tx.conn, unknown.fence, state, reason, now)
    jobs.finish(tx.conn, unknown.job_id, state, reason, now)
    job = jobs.by_id(tx.conn, unknown.job_id)
    hosts.follow(tx, master, job, now)
    dispatch.advance(tx, master, job.run_id, now)
    deploying.offer_waiting(tx, master, now)
