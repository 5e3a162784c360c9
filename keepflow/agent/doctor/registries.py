"""The registries this host pulls from: do they answer, does the login pull, and can it do no more than that."""

from __future__ import annotations

from keepflow import errors
from keepflow.agent.doctor.finding import Finding, failed, ok, warning
from keepflow.agent.doctor.patient import Patient
from keepflow.config.agent_file import AgentRegistry
from keepflow.core.loopback import is_loopback
from keepflow.core.releases import ImageRef
from keepflow.ports import RegistryLogin
from keepflow.targets.docker import Docker
from keepflow.tools.files import read_private
from keepflow.tools.registry import Registry

SUBJECT = "registry"


def look(patient: Patient) -> list[Finding]:
    """Ask every registry that agent.yml has a login for, about the repositories that services may run."""
    wanted = [ImageRef.parse(image) for service in patient.file.services.values() for image in service.images]
    return [
        finding
        for address, registry in patient.file.registries.items()
        for finding in _one(patient, address, registry, sorted({ref.path for ref in wanted if ref.domain == address}))
    ]


def _one(patient: Patient, address: str, registry: AgentRegistry, repositories: list[str]) -> list[Finding]:
    try:
        login = _login(address, registry)
        client = _reached(address, registry, login)
        for repository in repositories:
            client.exists(repository, "latest")
        pushes = [repository for repository in repositories if login and client.may_push(repository)]
    except errors.KeepflowError as error:
        return [failed(SUBJECT, error.message, f"mend registries: {address} in agent.yml, or the registry")]
    whose = f"user {login.username!r}" if login else "anybody"
    found = [ok(SUBJECT, f"{address} lets {whose} read {', '.join(repositories) or 'it'}")]
    if pushes:
        sentence = f"{address} lets {whose} push to {', '.join(pushes)}: whoever takes this host can replace images"
        found.append(warning(SUBJECT, sentence, "give this host a login that can only pull"))
    return [*found, *_engine(patient, login)]


def _login(address: str, registry: AgentRegistry) -> RegistryLogin | None:
    if registry.password_file is None:
        return None
    return RegistryLogin(address, registry.username, read_private(registry.password_file).decode().strip())


def _reached(address: str, registry: AgentRegistry, login: RegistryLogin | None) -> Registry:
    """Return a client that was answered; without a CA one on this machine may speak plain HTTP, as engines allow it."""
    username, password = (login.username, login.password) if login else (None, None)
    client = Registry(address, username, password, registry.ca_file)
    try:
        client.ping()
    except errors.RegistryError as error:
        host = address.rpartition(":")[0] or address
        if error.code == "unauthorised" or registry.ca_file or not is_loopback(host):
            raise
        client = Registry(address, username, password, plain_http=True)
        client.ping()
    return client


def _engine(patient: Patient, login: RegistryLogin | None) -> list[Finding]:
    """Have the engine log in: it has certificates and proxies of its own, and it is the one that pulls."""
    if login is None:
        return []
    engine = Docker(patient.file.docker.host)
    try:
        engine.try_login(login)
    except errors.Unavailable:
        return []  # it does not answer at all, which has a line of its own
    except errors.DeployFailed as error:
        mend = f"put the registry's authority to /etc/docker/certs.d/{login.address}/ca.crt"
        return [failed(SUBJECT, f"{login.address}, asked by the engine: {error.message}", mend)]
    finally:
        engine.close()
    return [ok(SUBJECT, f"{login.address} lets the engine log in")]
