"""The order of a deploy: what the master signs and the agent obeys, field by field.

An order travels as a DSSE envelope (`crypto.dsse`) with payload type `PAYLOAD_TYPE`, signed by the master's order key.
The agent ignores unknown fields only when `critical` does not name them; a critical field it does not know = refuse.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

PAYLOAD_TYPE = "application/vnd.keepflow.deploy-order.v1+json"

#: Fields of version 1 that every agent must understand.
CRITICAL = (
    "action",
    "agent",
    "agent_key",
    "approver",
    "canary",
    "canary_hold",
    "critical",
    "deployment",
    "description",
    "description_hash",
    "environment",
    "evidence",
    "expect_current",
    "expires_at",
    "fence",
    "image",
    "instance",
    "issued_at",
    "nonce",
    "receipts",
    "secrets",
    "service",
    "version",
)


#: How much the receipts of an order must show, least first: nothing; how the image was built; also that it once passed
#: a test; also that the word that counts about it is not a rejection.
Evidence = Literal["none", "built", "passed", "tested"]
EVIDENCE: tuple[Evidence, ...] = ("none", "built", "passed", "tested")
#: More receipts than an order ever needs; a hostile one must not buy unbounded verifications.
MOST_RECEIPTS = 16
#: More secrets than a container of an order may name.
MOST_SECRETS = 200


class OrderImage(BaseModel):
    """Which image: by digest in a repository (registry origin), or by id on this engine (local origin)."""

    model_config = ConfigDict(frozen=True)

    origin: Literal["registry", "local"]
    repository: str
    image_id: str
    digest: str | None = None

    @property
    def identity(self) -> str:
        """The digest of a registry release, else the image id."""
        return self.digest or self.image_id


class OrderSecret(BaseModel):
    """One secret of the environment by name; its value travels apart from the order, sealed to the agent's key.

    `sha256` is of the sealed bytes, which begin with a fresh random key: it binds the order to exactly what travels
    with it, and says nothing that a value could be guessed by.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    version: int = Field(ge=1)
    sha256: str


def secret_place(order: str, fence: int, environment: str, name: str, version: int) -> str:
    """Return the place that a secret of an order is sealed for; `order` is the id of the deployment."""
    return json.dumps(["keepflow-order-secret-v1", order, fence, environment, name, version])


class DeployOrder(BaseModel):
    """One deploy or rollback of one release to one service on one agent. Times are UTC microseconds."""

    model_config = ConfigDict(frozen=True)

    version: Literal[1] = 1
    critical: tuple[str, ...] = CRITICAL
    action: Literal["deploy", "rollback", "adopt", "stage", "rehearse", "remove"]
    deployment: str  #: id made by the asker; asking again returns the status, never runs twice
    agent: str
    agent_key: str  #: key id of the agent this order is for
    environment: str  #: "project/name"
    service: str
    instance: str = "main"
    image: OrderImage
    description: dict[str, Any]  #: the resolved container description (`core.deploys.to_json`)
    description_hash: str
    receipts: Annotated[tuple[dict[str, Any], ...], Field(max_length=MOST_RECEIPTS)] = ()
    secrets: Annotated[tuple[OrderSecret, ...], Field(max_length=MOST_SECRETS)] = ()
    evidence: Evidence = "tested"  #: what the rules of the environment ask of `receipts`; the host's file may ask more
    fence: int = Field(ge=1)
    expect_current: str | None = None  #: identity that must serve now; None = not checked
    issued_at: int
    expires_at: int
    nonce: str
    approver: str
    canary: tuple[int, ...] = ()  #: percents of visitors that get the new release first, step by step
    canary_hold: int = 0  #: seconds for each step


CANARY_TYPE = "application/vnd.keepflow.canary-order.v1+json"
CANARY_CRITICAL = (
    "agent",
    "agent_key",
    "by",
    "critical",
    "deployment",
    "expires_at",
    "fence",
    "issued_at",
    "percent",
    "version",
    "word",
)


class CanaryOrder(BaseModel):
    """A word about a canary that is under way: go on with the next step, stay at this one, or put everything back."""

    model_config = ConfigDict(frozen=True)

    version: Literal[1] = 1
    critical: tuple[str, ...] = CANARY_CRITICAL
    word: Literal["continue", "hold", "abort"]
    percent: int | None = None  #: the step it is about; a word about a step that is over does nothing
    deployment: str
    fence: int = Field(ge=1)
    agent: str
    agent_key: str
    by: str
    issued_at: int
    expires_at: int
