"""What a deployment is on a host: what to make serve, what this host allows, and how it ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from keepflow.core import deploys
from keepflow.core.flows import Container
from keepflow.core.states import Phase
from keepflow.ports import RegistryLogin
from keepflow.wire.orders import DeployOrder, OrderSecret

#: What is done for an order, in words before the release; all others deploy it.
_DOING = {
    "rollback": "is going back to",
    "adopt": "is adopting",
    "stage": "is laying out",
    "rehearse": "is rehearsing",
    "remove": "is removing",
}


@dataclass(frozen=True, slots=True)
class Deployment:
    """One try to make a service serve one release; everything in it was already checked against the host's file."""

    id: str
    fence: int
    nonce: str
    environment: str
    service: str
    instance: str
    action: str  #: "deploy", "rollback", "adopt", "stage", "rehearse" or "remove"
    origin: str  #: "registry" or "local"
    repository: str
    image_id: str
    digest: str | None
    container: Container
    expect_current: str | None = None  #: identity that must serve now; None = not checked
    by: str = ""  #: "host:ann" when a person on this host asked for it; "" = an order of the master
    asked_at: int = 0  #: of a person on this host: UTC microseconds on the host's own clock
    approver: str = ""  #: who asked for it, as the order says
    canary: tuple[int, ...] = ()  #: percents of visitors that get it first, step by step
    canary_hold: int = 0  #: seconds for each step
    secrets: tuple[OrderSecret, ...] = ()  #: what the order brings of its environment, by name; no value

    @property
    def identity(self) -> str:
        """The digest of a registry release, else the image id."""
        return self.digest or self.image_id

    def words(self) -> str:
        """Say who is doing what: "host:ann is going back to sha256:0123…"."""
        who = self.by or self.approver or "the master"
        return f"{who} {_DOING.get(self.action, 'is deploying')} {self.identity[:19]}"

    @classmethod
    def of(cls, order: DeployOrder) -> Deployment:
        """Take what the deployer needs out of a verified order; raises KeyError, TypeError or ValueError."""
        return cls(
            id=order.deployment,
            fence=order.fence,
            nonce=order.nonce,
            environment=order.environment,
            service=order.service,
            instance=order.instance,
            action=order.action,
            origin=order.image.origin,
            repository=order.image.repository,
            image_id=order.image.image_id,
            digest=order.image.digest,
            container=deploys.from_json(order.description),
            expect_current=order.expect_current,
            approver=order.approver,
            canary=order.canary,
            canary_hold=order.canary_hold,
            secrets=order.secrets,
        )

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data, for the journal."""
        return {**asdict(self), "secrets": [one.model_dump() for one in self.secrets]}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Deployment:
        """Read it back from plain data."""
        lists = {
            "canary": tuple(data.get("canary", ())),
            "secrets": tuple(OrderSecret(**one) for one in data.get("secrets", ())),
        }
        return cls(**{**data, **lists, "container": deploys.from_json(data["container"])})


@dataclass(frozen=True, slots=True)
class ServicePolicy:
    """What the host's own file says about one service. Times are seconds."""

    service: str
    environment: str
    server_name: str = "localhost"  #: with `*.` in front every instance has its own
    listen: str = "80"
    certificate: str = ""
    certificate_key: str = ""
    instances: tuple[str, ...] = ("main",)  #: those whose front stands before the first deploy
    most: int | None = None  #: instances that branches may have here; None: only those above
    volumes: tuple[str, ...] = ()
    env_file: Path | None = None
    login: RegistryLogin | None = None
    reserve: int = 0  #: bytes that stay free on the engine's disk when an image is pulled
    keep: int = 5  #: releases whose images stay for a rollback, the serving one included
    drain: float = 30.0  #: longest wait for open connections of the old slot
    watch: float = 5.0  #: how long the new slot is watched, with the old one as net
    errors: float = 0.05  #: share of visitors' requests that may fail in it, above the share of the old one
    enough: int = 20  #: requests of visitors below which a share means nothing
    strikes: int = 3  #: bad probes in a row that end the watch
    hot: float = 0.0  #: how long the old slot is kept running for a rollback in no time
    net: bool = True  #: whether the old slot may answer for the new one while it is watched

    def host_name(self, instance: str) -> str:
        """Return the host name that visitors ask an instance by."""
        return self.server_name.replace("*", instance, 1)

    def address(self, instance: str) -> str:
        """Return where visitors find an instance."""
        scheme, usual = ("https", "443") if self.certificate else ("http", "80")
        port = self.listen.rpartition(":")[2]
        return f"{scheme}://{self.host_name(instance)}{'' if port == usual else f':{port}'}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a deployment ended: `done`, `failed` (old untouched), `reverted` (put back) or `unknown`."""

    outcome: Phase
    code: str = ""
    sentence: str = ""
    serving: str | None = None  #: identity that serves now
    receipt: dict[str, Any] = field(default_factory=dict)
    log_tail: str = ""  #: last lines of a new container that did not make it

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data, for the journal."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Outcome:
        """Read it back from plain data."""
        return cls(**{**data, "outcome": Phase(data["outcome"])})


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing on this host that is not as the last deployment left it."""

    what: str  #: "flags", "visitors", "slot", "container" or "image"
    expected: str
    found: str


@dataclass(frozen=True, slots=True)
class Serving:
    """What one instance serves now. `since` in UTC microseconds; `healthy` is None when nothing is there to ask."""

    service: str
    instance: str
    environment: str
    slot: str | None
    identity: str | None
    container_id: str | None = None
    image_id: str | None = None
    deployment: str | None = None
    since: int | None = None
    healthy: bool | None = None
    restarts: int = 0
    note: str = ""
    ours: bool | None = None  #: whether a deployment made the container that answers
    differences: tuple[Difference, ...] = ()


class Reporter(Protocol):
    """Who is told how deployments go. Both methods return only when what they were told will not be lost."""

    def phase(self, deployment: Deployment, phase: Phase, detail: str) -> None:
        """A deployment entered a phase, or says more about the one it is in."""

    def finished(self, deployment: Deployment, outcome: Outcome) -> None:
        """A deployment ended; may be told again after a crash, as the same deployment. Raises OutOfSpace."""
