"""Quarantine: a release that did badly in an environment does not go there again until a person lifts it, and why."""

from __future__ import annotations

from sqlalchemy import Connection

from keepflow.core import quarantine
from keepflow.core.releases import is_digest
from keepflow.core.states import Phase
from keepflow.errors import NotFound, UsageError
from keepflow.store import events, quarantines
from keepflow.store.deployments import Deployment
from keepflow.store.environments import Environment
from keepflow.store.quarantines import Quarantine
from keepflow.store.writer import Tx

BY_ITSELF = "keepflow"


def judge(
    tx: Tx, environment: Environment, deployment: Deployment, outcome: Phase, code: str, sentence: str, now: int
) -> None:
    """Draw the conclusion from how a deployment ended."""
    identity = deployment.identity
    if outcome == Phase.DONE:
        before = [one for one in standing(tx.conn, environment, identity) if one.at < deployment.requested_at]
        if before:
            _lift(tx, environment, before, BY_ITSELF, "it was deployed again, and served", now)
    elif quarantine.is_blamed(outcome, code, promoted_to=environment.promote_from is not None):
        row = {
            "environment_id": environment.id,
            "identity": identity,
            "deployment_id": deployment.id,
            "code": code,
            "sentence": sentence,
            "at": now,
        }
        quarantines.add(tx.conn, row)
        data = {"identity": identity, "code": code, "sentence": sentence}
        events.add_about(
            tx, now, "release-quarantined", environment, actor=BY_ITSELF, deployment=deployment.id, data=data
        )


def standing(conn: Connection, environment: Environment, identity: str | None = None) -> list[Quarantine]:
    """List what is under quarantine in an environment now."""
    return quarantines.standing(conn, environment.id, identity)


def lift(tx: Tx, environment: Environment, identity: str, by: str, why: str, now: int) -> None:
    """Let a release go to an environment again; raises NotFound when it is not under quarantine there."""
    if not is_digest(identity):
        raise UsageError("name the release by its whole digest (sha256:…)", code="bad-digest")
    if not why.strip():
        raise UsageError("say why it may go there again", code="no-reason")
    found = standing(tx.conn, environment, identity)
    if not found:
        raise NotFound(f"{identity[:19]} is not under quarantine in {environment.name}", code="no-quarantine")
    _lift(tx, environment, found, by, why.strip(), now)


def sentence(conn: Connection, environment: Environment, identity: str) -> str | None:
    """Say why a release may not go to an environment, or None when it is not under quarantine."""
    found = standing(conn, environment, identity)
    return f"this digest is under quarantine in {environment.name}: {found[0].sentence}" if found else None


def _lift(tx: Tx, environment: Environment, found: list[Quarantine], by: str, why: str, now: int) -> None:
    quarantines.lift(tx.conn, found, by, why, now)
    data = {"identity": found[0].identity, "why": why}
    events.add_about(tx, now, "quarantine-lifted", environment, actor=by, deployment=found[0].deployment_id, data=data)
