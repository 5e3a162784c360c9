"""Whether this host obeys a word about a running canary: signed like an order, and for that deployment alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from keepflow import errors
from keepflow.agent.canary import Wish
from keepflow.crypto import dsse
from keepflow.crypto.keys import PublicKey
from keepflow.wire.orders import CANARY_CRITICAL, CANARY_TYPE, CanaryOrder


@dataclass(frozen=True, slots=True)
class Standpoint:
    """What the host knows. `now` is the master's clock in UTC microseconds; `running` maps ids to fences."""

    agent: str
    key_id: str
    order_keys: tuple[PublicKey, ...]
    now: int
    running: Mapping[str, int]


def understood(envelope: Mapping[str, Any], here: Standpoint) -> tuple[str, Wish]:
    """Return the deployment a word is about, and the wish; raises Refused for one that is not obeyed."""
    try:
        payload = dsse.open_(envelope, CANARY_TYPE, *here.order_keys)
        critical = json.loads(payload).get("critical")
        order = CanaryOrder.model_validate_json(payload, strict=True)
    except errors.BadSignature as error:
        raise errors.Refused(f"not signed by the master of this agent: {error}", code="bad-signature") from None
    except (ValidationError, ValueError, AttributeError, RecursionError):
        raise errors.Refused("the word about a canary is not readable", code="bad-order") from None
    if not isinstance(critical, list) or set(critical) - set(CANARY_CRITICAL):
        raise errors.Refused("the word relies on fields this agent does not know; update the agent", code="critical")
    if order.agent != here.agent or order.agent_key != here.key_id:
        raise errors.Refused("the word is for another agent", code="other-agent")
    if here.running.get(order.deployment) != order.fence:
        raise errors.Refused("that deployment is not under way here", code="not-running")
    if here.now >= order.expires_at:
        raise errors.Refused("the word came too late", code="expired")
    return order.deployment, Wish(order.word, order.percent, order.by)
