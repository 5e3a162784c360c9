"""Whether this host obeys an order: a pure function of the envelope and of what the host knows.

The checks come in the order in which the words they rely on are proven: first the signature, then that this version
understands the order, then that it is for this agent, then that the host's own file allows it. What was accepted before
is answered then; anything else must have receipts that prove what they must, and be fresh.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from keepflow import errors
from keepflow.agent import evidence
from keepflow.agent.deployment import Deployment
from keepflow.config.agent_file import AgentFile, Service
from keepflow.core import canary, deploys
from keepflow.core.names import is_name
from keepflow.core.plain import loads
from keepflow.core.releases import is_digest
from keepflow.core.text import quoted
from keepflow.crypto import dsse
from keepflow.crypto.keys import PublicKey
from keepflow.wire.orders import CRITICAL, PAYLOAD_TYPE, DeployOrder

#: Microseconds by which an order may come from the future: clocks are measured, but not perfectly.
_TOLERANCE = 60 * 1_000_000


@dataclass(frozen=True, slots=True)
class Facts:
    """What the host knows. `now` is the master's clock in UTC microseconds, as this host measured it."""

    agent: str
    key_id: str
    order_keys: tuple[PublicKey, ...]  #: of the master; whose orders are obeyed now
    receipt_keys: tuple[PublicKey, ...]  #: of the master; whose receipts count, those it replaced included
    file: AgentFile
    now: int
    known: Callable[[str], bool]  #: deployment id → it was accepted here before
    highest_fence: Callable[[str, str], int]  #: (service, instance) → highest fence accepted
    made_here: Callable[[str], bool]  #: image id → a job of this agent built it
    serving: Callable[[str, str], str | None]  #: (service, instance) → identity that serves now


@dataclass(frozen=True, slots=True)
class Accepted:
    """The order is to be carried out."""

    order: DeployOrder
    deployment: Deployment


@dataclass(frozen=True, slots=True)
class Repeated:
    """The order is good, and it was accepted before: its status is the answer, it never runs again."""

    order: DeployOrder


@dataclass(frozen=True, slots=True)
class Refusal:
    """The order is not obeyed: the name of the check, and why."""

    code: str
    sentence: str


class _Refused(Exception):
    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.refusal = Refusal(code, sentence)


def check(envelope: Mapping[str, Any], facts: Facts) -> Accepted | Repeated | Refusal:
    """Decide about an envelope; never raises but what a fact raises, and changes nothing."""
    try:
        order = _understood(_payload(envelope, facts))
        _for_this_agent(order, facts)
        service = _service(order, facts)
        if order.action != "remove":  # it makes nothing, so what it would be made of is no matter
            _image(order, service, facts)
            _description(order, service)
            _canary(order, facts)
        if facts.known(order.deployment):
            return Repeated(order)
        if order.action == "stage" and not service.prestage:
            raise _Refused("no-prestage", f"this host's agent.yml takes no image of {order.service} ahead of a promote")
        if order.action != "remove":
            evidence.check(order, service, facts.receipt_keys)
        _fresh(order, facts)
        return Accepted(order, Deployment.of(order))
    except _Refused as refused:
        return refused.refusal
    except errors.BadReceipt as error:
        return Refusal(error.code, error.message)


def _payload(envelope: Mapping[str, Any], facts: Facts) -> bytes:
    try:
        return dsse.open_(envelope, PAYLOAD_TYPE, *facts.order_keys)
    except errors.BadSignature as error:
        raise _Refused("bad-signature", f"the order is not signed by the master of this agent: {error}") from None


def _understood(payload: bytes) -> DeployOrder:
    try:
        fields = loads(payload)
    except ValueError as error:
        raise _Refused("bad-order", f"the order is not readable: {error}") from None
    if not isinstance(fields, dict) or fields.get("version") != 1 or isinstance(fields["version"], bool):
        raise _Refused("version", "the order is of a version this agent does not know; update the agent")
    critical = fields.get("critical")
    unknown = [name for name in critical if name not in CRITICAL] if isinstance(critical, list) else ["critical"]
    if unknown:
        names = ", ".join(quoted(str(name)) for name in unknown)
        raise _Refused("critical", f"the order relies on fields this agent does not know ({names}); update the agent")
    try:
        return DeployOrder.model_validate_json(payload, strict=True)
    except ValidationError as error:
        where = ", ".join(".".join(map(str, each["loc"])) for each in error.errors()[:3])
        raise _Refused("bad-order", f"the order has wrong fields: {where}") from None


def _for_this_agent(order: DeployOrder, facts: Facts) -> None:
    if order.agent != facts.agent or order.agent_key != facts.key_id:
        raise _Refused(
            "other-agent", f"the order is for agent {quoted(order.agent)} or for another key than this one's"
        )
    if "deploy" not in facts.file.capabilities:
        raise _Refused("no-capability", "this host's agent.yml does not allow it to deploy")


def _service(order: DeployOrder, facts: Facts) -> Service:
    service = facts.file.services.get(order.service)
    if service is None:
        raise _Refused("service-unknown", f"this host's agent.yml has no service {quoted(order.service)}")
    if order.environment != service.environment:
        raise _Refused(
            "environment",
            f"service {order.service} obeys only {service.environment} on this host, not {quoted(order.environment)}",
        )
    if service.instances is None:
        if order.instance != service.instance:
            raise _Refused("instance", f"service {order.service} has no instance {quoted(order.instance)} on this host")
        if order.action == "remove":
            raise _Refused(
                "not-removable", f"only instances of branches are removed, and {order.service} has none here"
            )
    elif not is_name(order.instance):
        raise _Refused("instance", f"{quoted(order.instance)} is no name of an instance")
    return service


def _image(order: DeployOrder, service: Service, facts: Facts) -> None:
    image = order.image
    if image.repository not in service.images:
        raise _Refused(
            "image-not-allowed", f"service {order.service} may not run {quoted(image.repository)} on this host"
        )
    if not is_digest(image.image_id):
        raise _Refused("bad-image", "the order names no whole image id")
    if image.origin == "registry" and not (image.digest and is_digest(image.digest)):
        raise _Refused("bad-image", "the order names no whole digest; a tag is never obeyed")
    if image.origin == "local" and (image.digest is not None or not facts.made_here(image.image_id)):
        raise _Refused("not-made-here", f"image {image.image_id[:19]} was not built by a job of this agent")


def _description(order: DeployOrder, service: Service) -> None:
    try:
        container = deploys.from_json(order.description)
    except (KeyError, TypeError, ValueError) as error:
        raise _Refused("description", f"the container's description is not readable: {error}") from None
    if deploys.canonical(deploys.to_json(container)) != deploys.canonical(order.description):
        raise _Refused("description", "the container's description holds more than this agent understands")
    if deploys.description_hash(container) != order.description_hash:
        raise _Refused("description-hash", "the container's description is not the one that was hashed")
    foreign = sorted({volume.name for volume in container.volumes} - set(service.volumes))
    if foreign:
        raise _Refused(
            "volume-not-allowed",
            f"service {order.service} may not mount {', '.join(map(quoted, foreign))} on this host",
        )
    if container.release_command and service.release_command != "allowed":
        raise _Refused(
            "release-command-not-allowed",
            f"the release has a release_command, and this host runs none for {order.service}; to allow it, write "
            f"'release_command: allowed' under services.{order.service} in agent.yml",
        )


def _canary(order: DeployOrder, facts: Facts) -> None:
    if problem := canary.problem(order.canary, order.canary_hold):
        raise _Refused("canary", problem)
    if order.canary and facts.file.nginx.mode == "none":
        raise _Refused("canary", "a canary needs nginx in front, and this host's agent.yml has nginx: {mode: none}")


def _fresh(order: DeployOrder, facts: Facts) -> None:
    if facts.now >= order.expires_at:
        late = (facts.now - order.expires_at) / 1e6
        raise _Refused("expired", f"the order was void since {late:.0f} s when it came; ask again")
    if order.issued_at > facts.now + _TOLERANCE or order.issued_at >= order.expires_at:
        raise _Refused("clock", "the order comes from the future; compare the clocks of the master and this host")
    highest = facts.highest_fence(order.service, order.instance)
    if order.fence <= highest:
        raise _Refused(
            "stale-fence", f"the order has number {order.fence}, and {highest} was already accepted for {order.service}"
        )
    if order.expect_current is not None:
        serving = facts.serving(order.service, order.instance)
        if serving != order.expect_current:
            raise _Refused(
                "expect-current",
                f"the order expects {order.expect_current[:19]} to serve, but {(serving or 'nothing')[:19]} does; "
                "look at what is there and ask again",
            )
