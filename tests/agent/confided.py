"""Secrets as a master sends them beside an order."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import replace

from keepflow.agent.deployment import Deployment
from keepflow.crypto import keys, sealing
from keepflow.crypto.keys import PrivateKey
from keepflow.wire.orders import OrderSecret, secret_place

KEY = keys.generate()


def confided(
    deployment: Deployment, values: Mapping[str, str], version: int = 1, key: PrivateKey = KEY
) -> tuple[Deployment, dict[str, str]]:
    """Return the deployment as an order with these secrets makes it, and what travels beside that order."""
    named, sealed = [], {}
    for name, value in values.items():
        place = secret_place(deployment.id, deployment.fence, deployment.environment, name, version)
        blob = sealing.seal(value.encode(), key.opening.public, place)
        named.append(OrderSecret(name=name, version=version, sha256=hashlib.sha256(blob).hexdigest()))
        sealed[name] = base64.b64encode(blob).decode()
    return replace(deployment, secrets=tuple(named)), sealed
