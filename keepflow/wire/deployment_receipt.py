"""The receipt of a deployment: what the agent signs about how it went, for whoever asks later, master or not.

It travels and is kept as a DSSE envelope (`crypto.dsse`) with payload type `PAYLOAD_TYPE`, signed by the agent's key.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

PAYLOAD_TYPE = "application/vnd.keepflow.deployment-receipt.v1+json"


class DeploymentReceipt(BaseModel):
    """One deployment on one host, from its acceptance to its end. Times are UTC microseconds."""

    model_config = ConfigDict(frozen=True)

    version: Literal[1] = 1
    agent: str
    environment: str  #: "project/name"
    service: str
    instance: str
    deployment: str
    fence: int
    action: str
    approver: str
    identity: str  #: the release that was ordered
    outcome: Literal["done", "failed", "reverted", "unknown"]
    code: str
    sentence: str
    serving: str | None  #: identity that served at the end
    at: int
    evidence: dict[str, Any]  #: what the agent saw: phases, probes, sockets, visitors, canary, digests
