"""The agent's own file, `agent.yml`: what this host allows the master to do here; nothing sent later can widen it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import IPv4Network
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from keepflow.config.fields import (
    ContainerPath,
    Count,
    Duration,
    FilePath,
    Flag,
    HostName,
    HostPattern,
    Listen,
    Model,
    Name,
    Names,
    OneOrMany,
    Percent,
    PlainPath,
    Port,
    Program,
    ProjectPath,
    RegistryAddress,
    Repository,
    Size,
    SystemUser,
    Url,
    bad,
)
from keepflow.config.validation import check, finish
from keepflow.config.where import Cpus, Memory, Pids
from keepflow.config.yaml_loader import Document, load
from keepflow.core.allowed_images import allowed, problem
from keepflow.core.loopback import in_the_clear
from keepflow.core.names import is_name
from keepflow.core.text import quoted
from keepflow.crypto.keys import PublicKey
from keepflow.errors import Problem, Refused, UsageError

_HOST_KEY = re.compile(r"(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(?:256|384|521)) [A-Za-z0-9+/]+={0,2}")


def _network(value: Any) -> IPv4Network:
    try:
        network = IPv4Network(value if isinstance(value, str) else "")
    except ValueError:
        raise bad("bad-network", "must be a network like 10.213.0.0/16, with the host part zero") from None
    if network.prefixlen > 28 or network.is_multicast or network.is_loopback:
        raise bad("bad-network", "must hold at least one /28 of ordinary addresses")
    return network


def _engine_address(text: str) -> str:
    if not text.startswith("unix:///") or not text.isprintable():
        raise bad("bad-address", "must be a unix socket, like unix:///var/run/docker.sock")
    return text


def _public_key(value: Any) -> PublicKey:
    try:
        return PublicKey.parse(value if isinstance(value, str) else "")
    except UsageError:
        raise bad("bad-key", "must be a public key, like ed25519:… (44 letters and digits after the colon)") from None


Network = Annotated[IPv4Network, BeforeValidator(_network), WithJsonSchema({"type": "string"})]

ReceiptKey = Annotated[
    PublicKey,
    BeforeValidator(_public_key),
    WithJsonSchema({"type": "string", "pattern": "^ed25519:[A-Za-z0-9+/]{43}=$"}),
]


class AgentRegistry(Model):
    """How this host logs in at a registry: pull only. Without a user name it pulls as anybody."""

    username: str = ""
    password_file: FilePath | None = None
    ca_file: FilePath | None = None


class Nginx(Model):
    """Which nginx stands in front: the agent's `own`, the `host`'s (a generated include), or `none`."""

    mode: Literal["own", "host", "none"] = "own"
    include_dir: PlainPath = Path("/etc/nginx/conf.d")
    binary: Program = "nginx"


class Docker(Model):
    """Where the engine listens."""

    host: Annotated[str, BeforeValidator(lambda value: _engine_address(value if isinstance(value, str) else ""))] = (
        "unix:///var/run/docker.sock"
    )


class Storage(Model):
    """What of jobs stays on this host although nobody needs it now; `keepflow agent storage` shows it."""

    unused: Duration = 30 * 86400.0  #: images and checkouts that no job used for so long go; 0s = never
    budget: Size | None = None  #: bytes of all of them together; beyond, those go that were not used the longest


def _allowed_flow(text: str) -> str:
    if text != "*" and not all(map(is_name, text.split("/", 1))):
        raise bad("bad-name", "must be a project ('shop'), one of its flows ('shop/checks'), or '*' for all")
    return text


FlowPattern = Annotated[str, AfterValidator(_allowed_flow)]


def _among(patterns: tuple[str, ...], project: str, flow: str) -> bool:
    return not {"*", project, f"{project}/{flow}"}.isdisjoint(patterns)


def _image_pattern(text: str) -> str:
    if sentence := problem(text):
        raise bad("bad-pattern", sentence)
    return text


ImagePattern = Annotated[str, AfterValidator(_image_pattern)]


class Containers(Model):
    """Which flows may run commands in containers (`image:`, `services:`), and the most that one container gets."""

    flows: Annotated[tuple[FlowPattern, ...], OneOrMany()] = Field(default=(), alias="for")
    #: patterns of the images they may be made of, beside the one the run built; without it any
    images: Annotated[tuple[ImagePattern, ...], Field(min_length=1), OneOrMany()] | None = None
    memory: Memory | None = 4 * 2**30
    cpus: Cpus | None = None
    pids: Pids | None = 4096
    disk: Size | None = None  #: of what a container writes beside the checkout, where the engine can count it

    def allow(self, project: str, flow: str) -> bool:
        """Say whether a flow may have containers here."""
        return _among(self.flows, project, flow)

    def refuse(self, reference: str) -> None:
        """Raise Refused for an image that no container of a job may be made of here."""
        if self.images is not None and not allowed(self.images, reference):
            sentence = f"this host makes no container of a job from {quoted(reference)}"
            where = f"its agent.yml allows containers: {{images: [{', '.join(self.images)}]}}"
            raise Refused(f"{sentence}; {where}", code="image-refused")


def _host_key(text: str) -> str:
    if not _HOST_KEY.fullmatch(text):
        raise bad("bad-key", "must be the host's key like 'ssh-ed25519 AAAA…': ssh-keyscan HOST prints it")
    return text


class SshHost(Model):
    """A host that steps of some flows may run on (`ssh:`), reached by SSH; its key is pinned here."""

    address: HostName
    port: Port = 22
    user: SystemUser
    key_file: FilePath
    host_key: Annotated[str, AfterValidator(_host_key)]
    directory: ContainerPath  #: where checkouts are copied to
    flows: Annotated[tuple[FlowPattern, ...], OneOrMany()] = Field(default=(), alias="for")

    def allow(self, project: str, flow: str) -> bool:
        """Say whether steps of a flow may run there."""
        return _among(self.flows, project, flow)


class Tls(Model):
    """Certificate and key, when this nginx ends TLS."""

    certificate: PlainPath
    key: PlainPath


class Front(Model):
    """The front door of a service."""

    server_name: HostPattern
    listen: Listen = "80"
    tls: Tls | None = None


def _watch(value: Any) -> Any:
    return value if isinstance(value, dict) else {"for": value}


class Watch(Model):
    """How a new release is watched, and what puts the old one back."""

    seconds: Duration = Field(default=5.0, alias="for")
    errors: Percent = 0.05  #: share of visitors' requests that may fail, above the share before the switch
    requests: Count = 20  #: requests of visitors below which a share means nothing
    probes: Count = 3  #: bad answers to the agent's own probes in a row


class Service(Model):
    """What the master may put on this host under one name. Times are seconds."""

    environment: ProjectPath
    instance: Name = "main"
    instances: Count | None = None  #: how many branches may have an instance of their own here
    images: Annotated[tuple[Repository, ...], Field(min_length=1), OneOrMany()]
    front: Front | None = None
    volumes: Names = ()
    env_file: FilePath | None = None
    receipts: Literal["promotes", "required"] = (
        "promotes"  #: which orders must prove how their image was built and tested
    )
    receipts_from: Annotated[tuple[ReceiptKey, ...], OneOrMany()] = ()  #: keys held elsewhere; then always required
    keep: Count = 5  #: images kept for rollback
    prestage: Flag = True  #: whether images that passed their test are laid here ahead of a promote
    drain: Duration = 30.0  #: longest wait for open connections of the old slot
    watch: Annotated[Watch, BeforeValidator(_watch, json_schema_input_type=Duration | Watch)] = Watch()
    release_command: Literal["refused", "allowed"] = "refused"  #: whether a release may run a command of its own first
    hot: Duration = 600.0  #: how long the old slot is kept running for a rollback in no time


class AgentFile(Model):
    """A whole agent file. `KEEPFLOW_AGENT_STATE`, not this file, says where state lives."""

    master: Url
    insecure_http: Flag = False  #: the master may be reached unencrypted, over a network that somebody else guards
    capabilities: Annotated[tuple[Literal["run", "deploy"], ...], Field(min_length=1), OneOrMany()]
    labels: Names = ()
    jobs: Count = 1  #: script jobs at once
    jobs_user: SystemUser | None = None  #: system user that script jobs run as
    docker: Docker = Docker()
    containers: Containers = Containers()
    ssh: dict[Name, SshHost] = Field(default_factory=dict)  #: hosts that steps may run on
    docker_for: Annotated[tuple[ProjectPath, ...], OneOrMany()] = ()  #: flows that get the engine
    registries: dict[RegistryAddress, AgentRegistry] = Field(default_factory=dict)
    storage: Storage = Storage()
    reserve: Size = 1_000_000_000  #: bytes that stay free on the engine's disk when an image is pulled
    networks: Network = IPv4Network("10.213.0.0/16")  #: pool of slot networks, one /28 per instance
    address: Literal["container", "loopback"] = "container"
    nginx: Nginx = Nginx()
    services: dict[Name, Service] = Field(default_factory=dict)


def load_agent(text: str | bytes, file: str = "agent.yml") -> AgentFile:
    """Read an agent file; paths in it are relative to its own folder. Raises ConfigError with every problem."""
    document = load(text, file)
    agent, problems = check(AgentFile, document.value, document, context={"base": Path(file).absolute().parent})
    if agent is None:
        finish(document, problems)
        raise AssertionError("a refused file has problems")
    found = (_master_problems, _registry_problems, _service_problems)
    finish(document, [problem for problems_of in found for problem in problems_of(agent, document)])
    return agent


def _master_problems(agent: AgentFile, document: Document) -> list[Problem]:
    if agent.insecure_http or not in_the_clear(agent.master):
        return []
    sentence = (
        f"master: {agent.master} is not encrypted: give the master a certificate and write https://, "
        "or write insecure_http: true when the network between guards it (a VPN)"
    )
    return [document.problem(("master",), "insecure-http", sentence)]


def _registry_problems(agent: AgentFile, document: Document) -> list[Problem]:
    return [
        document.problem(
            ("registries", address), "missing", f"registries.{address}: username and password_file belong together"
        )
        for address, login in agent.registries.items()
        if bool(login.username) != bool(login.password_file)
    ]


def _service_problems(agent: AgentFile, document: Document) -> list[Problem]:
    problems: list[Problem] = []
    fronts: dict[tuple[str, str], str] = {}
    if agent.services and "deploy" not in agent.capabilities:
        sentence = "services need the capability 'deploy' in capabilities"
        problems.append(document.problem(("services",), "needs-deploy", sentence, key=True))
    for name, service in agent.services.items():
        path = ("services", name)
        problems += _instance_problems(name, service, document)
        if service.front is None:
            if agent.nginx.mode != "none":
                sentence = f"services.{name}: 'front' is missing; without a front write nginx: {{mode: none}}"
                problems.append(document.problem(path, "missing", sentence))
            continue
        door = (service.front.server_name, service.front.listen)
        if door in fronts:
            sentence = f"services.{name}: {door[0]} on {door[1]} is already the front of {fronts[door]!r}"
            problems.append(document.problem((*path, "front"), "duplicate-front", sentence))
        fronts.setdefault(door, name)
    return problems


def _instance_problems(name: str, service: Service, document: Document) -> Iterator[Problem]:
    """Find a front for every instance of a service that has one instance, and the other way round."""
    if service.front is None:
        return
    path = ("services", name, "front", "server_name")
    pattern = service.front.server_name.startswith("*.")
    if pattern and service.instances is None:
        sentence = f"services.{name}: '*' stands for the name of an instance; say how many there may be: instances: 20"
        yield document.problem(path, "needs-instances", sentence)
    elif service.instances is not None and not pattern:
        sentence = (
            f"services.{name}: every instance needs a name of its own: server_name: '*.{service.front.server_name}'"
        )
        yield document.problem(path, "needs-pattern", sentence)
