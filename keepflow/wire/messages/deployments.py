"""Deployments: orders, what an agent says of them, and what serves on its host."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from keepflow.wire.messages.base import DeploymentId, Message, Whole


class Deploy(Message):
    """Carry out the signed order inside; `fence` repeats the order's for log frames, never as authority."""

    type: Literal["deploy"] = "deploy"
    fence: Whole
    deployment: DeploymentId
    envelope: dict[str, Any]
    secrets: dict[str, str] = Field(default_factory=dict, repr=False)  #: name → base64, sealed to the agent's key


class Steer(Message):
    """A signed word about a canary that is under way (`wire.orders.CanaryOrder`)."""

    type: Literal["steer"] = "steer"
    fence: Whole
    deployment: DeploymentId
    envelope: dict[str, Any]


class DeployAnswer(Message):
    """The agent took an order, or refused it with the name of the check that failed."""

    type: Literal["deploy-answer"] = "deploy-answer"
    fence: Whole
    deployment: DeploymentId
    at: Whole
    accepted: bool
    code: str = ""
    sentence: str = ""


class DeployPhase(Message):
    """A deployment entered a phase (or says more about the one it is in)."""

    type: Literal["deploy-phase"] = "deploy-phase"
    fence: Whole
    deployment: DeploymentId
    at: Whole
    phase: str
    detail: str = ""


class DeployFinished(Message):
    """A deployment ended: done, failed, reverted or unknown, with its receipt."""

    type: Literal["deploy-finished"] = "deploy-finished"
    fence: Whole
    deployment: DeploymentId
    at: Whole
    outcome: Literal["done", "failed", "reverted", "unknown"]
    code: str = ""
    sentence: str = ""
    serving: str | None = None  #: identity that serves now
    receipt: dict[str, Any] = Field(default_factory=dict)
    envelope: dict[str, Any] | None = None  #: `wire.deployment_receipt`, signed by the agent's key; holds `receipt`
    log_tail: str = ""  #: last lines of a new container that did not make it


class HostRollback(Message):
    """A person on the host rolled back there, without an order; told whenever the agent can.

    One that ended `unknown` is told again, under the same id, when it has settled.
    """

    type: Literal["host-rollback"] = "host-rollback"
    fence: Whole  #: of the last order accepted before; it names no attempt
    deployment: DeploymentId
    asked_at: Whole
    at: Whole
    by: str  #: "host:ann"
    service: str
    instance: str
    origin: Literal["local", "registry"]
    repository: str
    image_id: str
    digest: str | None = None
    description: dict[str, Any]
    outcome: Literal["done", "failed", "reverted", "unknown"]
    code: str = ""
    sentence: str = ""
    serving: str | None = None
    receipt: dict[str, Any] = Field(default_factory=dict)
    log_tail: str = ""


class KeptRelease(Message):
    """One release that does not serve: `hot` (it runs), `cold` (on the disk), `gone`, or `staged` for a promote."""

    identity: str
    how: str
    bytes: Whole = 0
    hot_until: Whole | None = None


class Difference(Message):
    """One thing on the host that is not as the agent left it."""

    what: str  #: "flags", "visitors", "slot", "container", "image"
    expected: str
    found: str


class ServiceState(Message):
    """What one service on the host serves right now."""

    service: str
    instance: str
    environment: str
    slot: str | None = None
    identity: str | None = None
    deployment: str | None = None
    since: Whole | None = None
    healthy: bool | None = None
    note: str = ""
    busy: bool = False  #: a deployment is under way here, or its end is still to be told
    image_id: str | None = None  #: what the engine calls the image of the container that answers
    container: str | None = None  #: its id
    ours: bool | None = None  #: whether a deployment made it
    differences: tuple[Difference, ...] = ()
    kept: tuple[KeptRelease, ...] | None = None  #: None = this agent does not tell
    address: str = ""  #: where visitors find it; "" = this agent does not tell
    given: tuple[str, ...] | None = None  #: names that the host's env_file holds; None = this agent does not tell


class Heartbeat(Message):
    """Agent: alive, on this clock, holding these attempts, serving this."""

    type: Literal["heartbeat"] = "heartbeat"
    at: Whole
    running: tuple[Whole, ...] = ()
    services: tuple[ServiceState, ...] = ()
    free_bytes: Whole | None = None
