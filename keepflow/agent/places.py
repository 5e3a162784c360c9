"""The instances of one host: which are here, where each is served, and what the host's file allows them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from keepflow.agent.deployment import ServicePolicy
from keepflow.agent.instances import Instance, known_instances
from keepflow.agent.networks import Networks
from keepflow.errors import UsageError
from keepflow.ports import Site


@dataclass(frozen=True, slots=True)
class Places:
    """All instances below `root`, the folder that holds them."""

    root: Path
    policies: Mapping[str, ServicePolicy]
    networks: Networks

    def known(self) -> list[Instance]:
        """List the instances that are here, of services that this host's file names."""
        return [found for found in known_instances(self.root) if found.service in self.policies]

    def site(self, instance: Instance) -> Site:
        """Return where an instance is served; makes its network when it has none."""
        network = self.networks.of(instance.service, instance.instance)
        return instance.front().site(self.policy(instance.service), network)

    def standing_site(self, instance: Instance) -> Site | None:
        """Return the site of an instance that is here, None for one that is not any more; makes neither."""
        network = self.networks.known(instance.service, instance.instance)
        known = network is not None and instance.known
        return instance.front().site(self.policy(instance.service), network) if known and network else None

    def instance(self, service: str, instance: str) -> Instance:
        """Return an instance, whether anything is there or not."""
        return Instance(self.root, service, instance)

    def policy(self, service: str) -> ServicePolicy:
        """Return what this host allows a service; raises UsageError `unknown-service`."""
        if service not in self.policies:
            raise UsageError(f"this host's file names no service {service!r}", code="unknown-service")
        return self.policies[service]
