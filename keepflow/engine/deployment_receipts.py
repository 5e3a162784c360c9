"""Receipts of deployments: kept as they came, and compared with the key their agent has and with what it said."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from keepflow.crypto import dsse
from keepflow.crypto.keys import PublicKey
from keepflow.errors import BadSignature, UsageError
from keepflow.store import agents
from keepflow.store.deployments import Deployment
from keepflow.wire.deployment_receipt import PAYLOAD_TYPE
from keepflow.wire.messages import DeployFinished

_LIMIT = 256 * 1024  #: characters of an envelope that are kept


@dataclass(frozen=True, slots=True)
class Judged:
    """A receipt as it is kept: `verdict` is "good", "bad" or "none"."""

    envelope: dict[str, Any] | None
    verdict: str


def judge(conn: Connection, deployment: Deployment, body: DeployFinished) -> Judged:
    """Say whether a receipt is signed by the agent's key and says what the agent reported."""
    if body.envelope is None:
        return Judged(None, "none")
    if len(json.dumps(body.envelope)) > _LIMIT:
        return Judged(None, "bad")
    return Judged(body.envelope, "good" if _fits(conn, deployment, body) else "bad")


def _fits(conn: Connection, deployment: Deployment, body: DeployFinished) -> bool:
    if deployment.agent_id is None:
        return False
    try:
        key = PublicKey.parse(agents.by_id(conn, deployment.agent_id).public_key)
        said = json.loads(dsse.open_(body.envelope or {}, PAYLOAD_TYPE, key))
    except (BadSignature, UsageError, ValueError, RecursionError):
        return False
    wanted = {
        "deployment": body.deployment,
        "fence": body.fence,
        "identity": deployment.identity,
        "outcome": body.outcome,
        "code": body.code,
        "serving": body.serving,
        "evidence": body.receipt,
    }
    return isinstance(said, dict) and all(said.get(name) == value for name, value in wanted.items())
