"""Signed orders for tests, and the host they are for."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

from keepflow.agent.policy import Facts
from keepflow.config.agent_file import AgentFile, load_agent
from keepflow.core import deploys
from keepflow.core.flows import Container, Health, Volume
from keepflow.crypto import dsse, keys
from keepflow.crypto.keys import PrivateKey
from keepflow.wire.orders import PAYLOAD_TYPE

V1, V2, V3 = (f"sha256:{digit * 64}" for digit in "123")
FILE = """
master: https://ci.example.org
capabilities: [run, deploy]
nginx: {mode: none}
services:
  shop:
    environment: shop/production
    images: ["registry.example.org:5000/shop", shop]
    volumes: [data]
    watch: 50ms
    drain: 500ms
    hot: 0
"""
NOW = 1_800_000_000_000_000
MINUTE = 60_000_000
_numbers = itertools.count(1)


@dataclass
class Court:
    """The master's pen and what the host knows when an order comes."""

    order_key: PrivateKey = field(default_factory=keys.generate)
    agent_key: PrivateKey = field(default_factory=keys.generate)
    file: AgentFile = field(default_factory=lambda: load_agent(FILE))
    now: int = NOW
    known: set[str] = field(default_factory=set)
    highest: int = 10
    made: set[str] = field(default_factory=lambda: {V1, V2, V3})
    serves: str | None = V1

    @property
    def facts(self) -> Facts:
        """Return the facts as policy wants them."""
        return Facts(
            agent="prod-1",
            key_id=self.agent_key.public.key_id,
            order_keys=(self.order_key.public,),
            receipt_keys=(self.order_key.public,),
            file=self.file,
            now=self.now,
            known=lambda deployment: deployment in self.known,
            highest_fence=lambda _service, _instance: self.highest,
            made_here=lambda image_id: image_id in self.made,
            serving=lambda _service, _instance: self.serves,
        )

    def order(self, **changes: Any) -> dict[str, Any]:
        """Return the fields of a good order, with changes."""
        number = next(_numbers)
        container = changes.pop("container", None) or Container(
            port=8099,
            health=Health(within=0.5, successes=2, timeout=0.5, interval=0.02),
            volumes=(Volume("data", "/data", shared=True),),
            stop_timeout=1.0,
        )
        fields: dict[str, Any] = {
            "version": 1,
            "critical": ["fence", "image"],
            "action": "deploy",
            "deployment": f"d-{number}",
            "agent": "prod-1",
            "agent_key": self.agent_key.public.key_id,
            "environment": "shop/production",
            "service": "shop",
            "instance": "main",
            "image": {"origin": "local", "repository": "shop", "image_id": V2, "digest": None},
            "description": deploys.to_json(container),
            "description_hash": deploys.description_hash(container),
            "receipts": [],
            "evidence": "none",
            "fence": 10 + number,
            "expect_current": None,
            "issued_at": self.now - MINUTE,
            "expires_at": self.now + 9 * MINUTE,
            "nonce": f"n-{number}",
            "approver": "ann",
        }
        return {**fields, **changes}

    def sign(self, fields: dict[str, Any], key: PrivateKey | None = None) -> dict[str, Any]:
        """Put fields under the master's signature."""
        return dsse.seal(deploys.canonical(fields), PAYLOAD_TYPE, key or self.order_key)
