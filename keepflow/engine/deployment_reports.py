"""What agents say of deployments, written down: accepted or refused, phase by phase, and how it ended.

The master decides nothing about a deployment once the agent accepted it. What follows from a report is the caller's.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection

from keepflow.core.states import OUTCOMES, Phase, Reason, job_state_of, phase_may_move
from keepflow.core.text import one_line
from keepflow.engine import deployment_receipts, evidence, gates, quarantining
from keepflow.engine.context import Master
from keepflow.engine.deploying import group_of
from keepflow.store import deployments, environments, events, jobs, placements, releases
from keepflow.store.deployments import Deployment
from keepflow.store.environments import Environment
from keepflow.store.writer import Tx
from keepflow.wire import messages

#: What is kept of an agent's words: characters of a sentence and of a log's end, entries of the list of phases.
_SENTENCE, _LOG_TAIL, _MOST_PHASES = 2000, 64 * 1024, 500


def report(tx: Tx, master: Master, agent_id: int, body: messages.Message, now: int) -> None:
    """Write down what an agent says of a deployment; what a stale owner says changes nothing.

    The caller does what follows from that: `hosts.follow`, `dispatch.advance`, `offer_waiting`.
    """
    if not isinstance(body, messages.DeployAnswer | messages.DeployPhase | messages.DeployFinished):
        raise TypeError(f"no deployment report: {type(body).__name__}")
    deployment = deployments.by_id(tx.conn, body.deployment)
    if deployment is None or deployment.agent_id != agent_id or deployment.fence != body.fence:
        data = {"deployment": one_line(body.deployment, 100), "fence": body.fence, "type": body.type}
        events.add(tx, now, "stale-report", agent_id=agent_id, data=data)
        return
    if isinstance(body, messages.DeployAnswer):
        _answered(tx, master, deployment, body, now)
    elif isinstance(body, messages.DeployPhase):
        _entered(tx, master, deployment, body, now)
    else:
        _finished(tx, master, deployment, body, now)
    run_id = jobs.by_id(tx.conn, deployment.job_id).run_id
    tx.after_commit(lambda: master.wakes.fire(f"run:{run_id}"))


def _answered(tx: Tx, master: Master, deployment: Deployment, body: messages.DeployAnswer, now: int) -> None:
    if not body.accepted:
        known = deployment.accepted_at is not None
        finished = messages.DeployFinished(
            fence=body.fence,
            deployment=body.deployment,
            at=body.at,
            outcome="unknown" if known else "failed",
            code=body.code,
            sentence=f"the agent {'knows nothing of it any more' if known else 'refused the order'}: {body.sentence}",
        )
        _finished(tx, master, deployment, finished, now)
        return
    if phase_may_move(deployment.phase, Phase.ACCEPTED):
        phases = [*deployment.phases, {"phase": Phase.ACCEPTED.value, "at": body.at, "detail": ""}]
        deployments.move(tx.conn, deployment, Phase.ACCEPTED, {"phases": phases, "accepted_at": now})
        jobs.run(tx.conn, deployment.job_id, now)
        environment = environments.by_id(tx.conn, deployment.environment_id)
        events.add_about(tx, now, "deployment-accepted", environment, deployment=deployment.id)


def _entered(tx: Tx, master: Master, deployment: Deployment, body: messages.DeployPhase, now: int) -> None:
    phase = Phase(body.phase) if body.phase in set(Phase) else deployment.phase
    if phase == Phase.ACCEPTED == deployment.phase:
        return  # the answer to the order said so already
    if len(deployment.phases) >= _MOST_PHASES:
        return
    said = {"phase": one_line(body.phase, 40), "at": body.at, "detail": _kept(body.detail)}
    forward = phase not in OUTCOMES and phase_may_move(deployment.phase, phase)
    moved = phase if forward else deployment.phase
    deployments.move(tx.conn, deployment, moved, {"phases": [*deployment.phases, said]})
    environment = environments.by_id(tx.conn, deployment.environment_id)
    events.add_about(tx, now, "deployment-phase", environment, deployment=deployment.id, data={"phase": said["phase"]})
    tx.after_commit(lambda: master.wakes.fire("events"))


def _finished(tx: Tx, master: Master, deployment: Deployment, body: messages.DeployFinished, now: int) -> None:
    outcome = Phase(body.outcome)
    if not phase_may_move(deployment.phase, outcome):
        return
    environment = environments.by_id(tx.conn, deployment.environment_id)
    code, sentence = one_line(body.code, 40), _kept(body.sentence)
    judged = deployment_receipts.judge(tx.conn, deployment, body)
    phases = [*deployment.phases, {"phase": outcome.value, "at": body.at, "detail": sentence}]
    values: dict[str, Any] = {
        "phases": phases,
        "reason_code": code,
        "reason": sentence,
        "receipt": body.receipt or None,
        "receipt_envelope": judged.envelope,
        "receipt_verdict": judged.verdict,
        "log_tail": _kept(body.log_tail[-_LOG_TAIL:], _LOG_TAIL),
        "finished_at": now,
    }
    if outcome == Phase.DONE:
        placement = environment.host(deployment.host)
        values["replaced_id"] = placement.current_id if placement else None
    deployments.move(tx.conn, deployment, outcome, values)
    if outcome == Phase.DONE:
        placements.set_current(tx.conn, environment.id, deployment.host, deployment.id)
        if _everywhere(tx.conn, deployment):
            evidence.add_test_result(tx, master, deployment, passed=True, person="", note="", now=now)
            gates.offer(tx, environment, releases.by_id(tx.conn, deployment.release_id), now)
    quarantining.judge(tx, environment, deployment, outcome, code, sentence, now)
    if body.serving is not None:
        _observe(tx.conn, environment, deployment, body, now)
    state = job_state_of(outcome)
    reason = Reason("outcome-unknown" if outcome == Phase.UNKNOWN else code, sentence)
    if outcome == Phase.UNKNOWN:
        jobs.wait(tx.conn, deployment.job_id, reason)
    else:
        jobs.finish_attempt(tx.conn, body.fence, state, reason, now)
        jobs.finish(tx.conn, deployment.job_id, state, reason, now)
    data = {"outcome": body.outcome, "code": code, "identity": deployment.identity}
    kind, by = f"deployment-{outcome.value}", deployment.requested_by
    events.add_about(tx, now, kind, environment, actor=by, deployment=deployment.id, data=data)


def _everywhere(conn: Connection, deployment: Deployment) -> bool:
    """Say whether a deployment is done on every host of its environment that it was to go to."""
    group = group_of(conn, jobs.by_id(conn, deployment.job_id))
    return all(found is None or found.phase == Phase.DONE for found in (deployments.of_job(conn, j.id) for j in group))


def _kept(text: str, limit: int = _SENTENCE) -> str:
    """Return an agent's words as far as they are kept, without what no database takes."""
    return text[:limit].replace("\0", "")


def _observe(
    conn: Connection, environment: Environment, deployment: Deployment, body: messages.DeployFinished, now: int
) -> None:
    seen = messages.ServiceState(
        service=environment.service,
        instance=environment.instance,
        environment=environment.name,
        slot=body.receipt.get("slot"),
        identity=body.serving,
        deployment=deployment.id if body.outcome == "done" else None,
        since=now,
        healthy=True,
    )
    placements.observe(conn, environment.id, deployment.host, seen.model_dump(mode="json"))
