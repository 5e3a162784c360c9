"""What the host's file allows, as the deployer asks for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from keepflow.agent.deployment import ServicePolicy
from keepflow.agent.host_file import HostFile
from keepflow.config.agent_file import AgentFile, Service
from keepflow.core.releases import ImageRef
from keepflow.ports import RegistryLogin
from keepflow.tools.files import read_private


class HostPolicies(Mapping[str, ServicePolicy]):
    """What the host's file allows, service by service, as it is now. Raises when a password file is unreadable."""

    def __init__(self, host_file: HostFile) -> None:
        self._host_file = host_file

    def __getitem__(self, name: str) -> ServicePolicy:
        file = self._host_file.now()
        service = file.services[name]
        front = service.front
        return ServicePolicy(
            service=name,
            environment=service.environment,
            server_name=front.server_name if front else "localhost",
            listen=front.listen if front else "80",
            certificate=str(front.tls.certificate) if front and front.tls else "",
            certificate_key=str(front.tls.key) if front and front.tls else "",
            instances=() if service.instances else (service.instance,),
            most=service.instances,
            volumes=service.volumes,
            env_file=service.env_file,
            login=_pull_login(file, service),
            reserve=file.reserve,
            keep=service.keep,
            drain=service.drain,
            watch=service.watch.seconds,
            errors=service.watch.errors,
            enough=service.watch.requests,
            strikes=service.watch.probes,
            hot=service.hot,
        )

    def __iter__(self) -> Iterator[str]:
        return iter(self._host_file.now().services)

    def __len__(self) -> int:
        return len(self._host_file.now().services)


def _pull_login(file: AgentFile, service: Service) -> RegistryLogin | None:
    address = ImageRef.parse(service.images[0]).domain
    registry = file.registries.get(address)
    if registry is None or registry.password_file is None:
        return None
    password = read_private(registry.password_file).decode().strip()
    authority = registry.ca_file.read_text() if registry.ca_file else ""
    return RegistryLogin(address, registry.username, password, authority)
