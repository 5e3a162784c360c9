"""The ports: what steps, executors, targets, proxies, forges and notifiers must be able to do, and how they are found.

Each plugin is one file whose name is its name in YAML; it holds exactly one class that fits the port (or, for steps and
forges, the module itself holds the named functions). Adding one is one new file, no other edit.
"""

from __future__ import annotations

import importlib
import pkgutil
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO, Protocol

from keepflow import errors
from keepflow.core.events import Parsed
from keepflow.core.flows import Container
from keepflow.core.notices import Notice
from keepflow.core.statuses import CommitStatus, Request
from keepflow.core.webhooks import HookPlace, PullPlace


def discover(package: str) -> dict[str, ModuleType]:
    """Import every module of a package and return them by file name; the name in the YAML is the name of the file."""
    home = importlib.import_module(package)
    names = (info.name for info in pkgutil.iter_modules(home.__path__) if not info.name.startswith("_"))
    return {name.replace("_", "-"): importlib.import_module(f"{package}.{name}") for name in names}


# --- executors: where a command runs -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Command:
    """One command as data. `argv` is a list, `env` is the whole environment, `cwd` an existing directory."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: Path
    timeout: float | None = None  #: seconds; None = the job's own limit only


class Running(Protocol):
    """A command that was started; it outlives the object, and `kill` ends its whole process group."""

    pid: int

    def wait(self, timeout: float | None = None) -> int | None:
        """Return the exit code (128+n for signal n), or None when it still runs after `timeout` seconds."""

    def kill(self, grace: float) -> None:
        """Send SIGTERM to the whole group, SIGKILL after `grace` seconds; returns when the group is gone."""


class Executor(Protocol):
    """Runs commands whose output goes, unbuffered and in order, to the end of one file."""

    def start(self, command: Command, output: BinaryIO, result: Path) -> Running:
        """Start the command; whoever has only the file `result` (and what the executor lays beside it) finds it again.

        Raises ProgramMissing or Unavailable; nothing runs then.
        """

    def find(self, mark: str | None, result: Path) -> Running | None:
        """Take up the command of a `result` that an earlier process of the agent started, running or ended by now.

        `mark` is KEEPFLOW_MARK of the command's environment. Returns None when it never began, raises Unavailable
        `processes-gone` when it is gone and nobody knows how it ended.
        """


# --- steps: the kinds of script jobs --------------------------------------------------------------------------------


def _keeps_nothing(_patterns: Sequence[str], _seconds: float) -> None:
    raise errors.Refused("artifacts are not kept here", code="no-artifacts")


@dataclass(slots=True)
class StepContext:
    """What a step may use. `say` adds text to the job's log as it is, line ends included; `sh` itself shows nothing.

    After a restart of the agent `perform` runs once more: what it said is not said again, and a command that was begun
    is not begun again but answers with its exit code. So the same commands must follow from the same exit codes.
    """

    workspace: Path
    env: dict[str, str]
    output_file: Path  #: KEEPFLOW_OUTPUT
    say: Callable[[str], None]
    sh: Callable[
        [Sequence[str], Mapping[str, str]], int
    ]  #: runs argv with extra env, in the workspace; returns exit code
    at_end: Callable[
        [Sequence[str]], None
    ]  #: has argv run when the step ends, however it ends; what it starts is outside of the job's time and stop
    registries: Mapping[str, RegistryLogin] = field(default_factory=dict)  #: lent to this job, by address
    #: keeps the files of the workspace that fit patterns, for so many seconds (0 = as long as the run's log)
    keep: Callable[[Sequence[str], float], None] = _keeps_nothing
    no_engine: str = ""  #: why this job may not use the engine of its machine; "" = it may


class StepKind(Protocol):
    """A module in `steps/`: `Spec` (a pydantic model, `extra='forbid'`), `perform`, and how a shorthand is read.

    `shorthand(value) -> dict` turns `run: make` into `{"script": "make"}`; `title(spec) -> str` is the name people see.
    A module that says `CONTAINED = True` has its commands run in the container that `image:` asks for.
    """

    Spec: type[Any]
    shorthand: Callable[[Any], dict[str, Any]]
    title: Callable[[Any], str]
    perform: Callable[[Any, StepContext], int]  #: (spec, context) -> exit code


def contained(kind: Any) -> bool:
    """Say whether the commands of a step kind run in the container that `image:` asks for."""
    return bool(getattr(kind, "CONTAINED", False))


@dataclass(frozen=True, slots=True)
class RegistryLogin:
    """A login lent to one job or held by an agent; never logged, never in argv."""

    address: str
    username: str
    password: str = field(repr=False)
    ca_pem: str = field(default="", repr=False)
    repositories: tuple[str, ...] = ()  #: allowed names without the address; empty = none


# --- targets: where a release serves --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SlotSpec:
    """Everything needed to create one container in one slot. Lists are exact; nothing is interpreted."""

    service: str
    instance: str
    slot: str
    address: str  #: fixed IPv4 in the slot network
    subnet: str  #: /28 of the slot network
    image_id: str  #: started by image id, so no registry and no tag is asked
    container: Container
    env: Mapping[str, str]  #: final environment, env_file included
    labels: Mapping[str, str]
    secrets: str = ""  #: directory on the host that the container reads as /run/secrets; "" = none
    restart: str = "unless-stopped"  #: given by `persist`, once it has proven itself
    command: tuple[
        str, ...
    ] = ()  #: argv run instead of what the image starts; () = the image's entry point with `args`


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """An engine: its version, the newest API it speaks, and the directory its images lie in."""

    version: str
    api: str
    root: str


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """An image on the engine: its id and the `repository@sha256:…` names it is known by."""

    image_id: str
    repo_digests: tuple[str, ...] = ()
    size: int = 0  #: bytes


_ENDED_BY_SIGTERM = 128 + signal.SIGTERM


@dataclass(frozen=True, slots=True)
class ContainerFacts:
    """A container as the engine sees it now."""

    id: str
    name: str
    image_id: str
    running: bool
    restarts: int
    exit_code: int | None
    oom_killed: bool
    started_at: str
    address: str | None
    labels: Mapping[str, str]
    pid: int = 0

    @property
    def asked_to_end(self) -> bool:
        """Say whether it ended by a SIGTERM: a person stopped it, or the engine was restarted."""
        return not self.running and self.exit_code == _ENDED_BY_SIGTERM


class Target(Protocol):
    """A place where containers serve. Names are exact; errors are DeployFailed or Unavailable with a code."""

    def ping(self) -> None:
        """Raise Unavailable when the engine does not answer (never read that as "container gone")."""

    def free(self) -> int | None:
        """Return the bytes that are free where the engine keeps its images, None when that cannot be seen from here."""

    def image(self, reference: str) -> ImageFacts | None:
        """Return the facts of an image on disk (by id, `repo@digest` or tag), or None."""

    def pull(self, repository: str, digest: str, login: RegistryLogin | None, say: Callable[[str], None]) -> ImageFacts:
        """Pull exactly this digest; read every line of the stream for errors; return the facts read back."""

    def keep(self, image_id: str, tag: str) -> None:
        """Tag an image locally so that no prune removes it."""

    def kept(self, repository: str) -> list[tuple[str, str]]:
        """List (tag, image id) of the keep-tags of one repository name."""

    def drop(self, reference: str) -> None:
        """Remove one keep-tag (and the image, when nothing else names it)."""

    def network(self, name: str, subnet: str, labels: Mapping[str, str]) -> None:
        """Make sure the slot network exists with this subnet; raises DeployFailed `network-overlap`."""

    def create(self, spec: SlotSpec) -> str:
        """Create (not start) the slot's container under its exact name and return its id; raises DeployFailed.

        A stopped container of this instance that has the name is set aside under another one; removing it, which takes
        a while, is left to the caller (`mine` finds it).
        """

    def start(self, container_id: str) -> None:
        """Start a created container, which the engine does not restart yet.

        Raises DeployFailed `start-failed` with the engine's words.
        """

    def persist(self, container_id: str) -> None:
        """Give a container that has proven itself its restart policy; until then it stays down when it ends."""

    def inspect(self, name: str) -> ContainerFacts | None:
        """Return the facts of the container with exactly this name, running or not."""

    def at(self, network: str, address: str) -> ContainerFacts | None:
        """Return the running container that has an address in a network, whoever made it, or None."""

    def tail(self, container_id: str, lines: int) -> str:
        """Return the last lines of the container's own output."""

    def stop(self, container_id: str, grace: float) -> None:
        """Set restart policy `no`, send SIGTERM, SIGKILL after `grace` seconds; a stopped one is left in place."""

    def remove(self, container_id: str) -> None:
        """Remove a container; gone already is fine."""

    def mine(self, labels: Mapping[str, str]) -> list[ContainerFacts]:
        """List containers, running or not, that carry all these labels exactly."""

    def forget(self, service: str, instance: str) -> None:
        """Remove the network and the volumes of an instance that has no containers; gone already is fine."""


# --- proxies: who sends traffic to the slot -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Site:
    """One instance's front: what the proxy must know once, at enrolment; a deploy never changes it."""

    service: str
    instance: str
    server_name: str
    listen: str  #: "80" or "127.0.0.1:8900"
    blue: str  #: "address:port" of the blue slot; each slot has its own port, so that a release may change it
    green: str
    probe_token: str = field(repr=False)
    bypass_token: str = field(repr=False)
    certificate: str = ""  #: path, when this proxy ends TLS
    certificate_key: str = ""
    only_by_name: bool = False  #: nothing is answered to whoever asks by another name

    @property
    def bypass_path(self) -> str:
        """The path that gives a visitor the cookie to look behind the maintenance page."""
        return f"/__keepflow/bypass/{self.bypass_token}"


@dataclass(frozen=True, slots=True)
class Traffic:
    """Who gets traffic: exactly one slot, or none (`slot=None` with `maintenance`).

    `net`: the other slot is a backup for the watch window. `maintenance`: visitors see the page. `canary`: so many
    percent of visitors go to the other slot. `counted`: what visitors are answered is written down (`visits`).
    """

    slot: str | None
    net: bool = False
    maintenance: bool = False
    canary: int = 0
    counted: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back through the front door. `slot` and `address` are who really answered, if said."""

    status: int
    slot: str | None
    address: str | None
    body: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Visit:
    """One request of a visitor (never a probe) that was given to an application."""

    at: float  #: UTC seconds, when it had been answered
    status: int
    meant: str | None  #: slot it was given to
    by: str | None  #: slot that answered; None: nobody did


class Proxy(Protocol):
    """Sends traffic to slots. `switch` is all or nothing: moved, or raised with the old state still in force."""

    def ensure(self, site: Site) -> None:
        """Make the front of an instance exist and run, first state included; idempotent; raises DeployFailed."""

    def state(self, site: Site) -> Traffic | None:
        """Read the state in force from disk, or None when nothing was ever switched."""

    def switch(self, site: Site, traffic: Traffic) -> None:
        """Put a state in force durably and atomically; raises DeployFailed `switch-failed`, the old one in force."""

    def probe(self, site: Site, path: str, timeout: float, slot: str | None = None) -> Answer:
        """Ask the front door as a visitor would, with the probe token; raises DeployFailed `proxy-down`.

        `slot` asks for one of the slots, whoever the state sends visitors to.
        """

    def visits(self, site: Site, position: int) -> tuple[list[Visit], int]:
        """Return what visitors were answered since a position (0 = since counting began), and the position after it.

        The record begins anew when a state that is not `counted` is followed by one that is. A proxy that keeps none
        returns nothing.
        """

    def sees_flags(self, site: Site) -> bool:
        """Say whether the running proxy really obeys the flag directory."""

    def remove(self, site: Site) -> None:
        """Take the front of an instance away; gone already is fine."""


# --- forges: who calls the hook -------------------------------------------------------------------------------------


class Forge(Protocol):
    """A module in `forges/`: pure functions from (headers, raw body) to facts. Header names are lower case.

    `delivery_id(headers) -> str | None`, `event_name(headers) -> str`,
    `verify(headers, body, secret) -> None` raises BadSignature, compares bytes in constant time,
    `parse(headers, body) -> Parsed` never raises but UsageError for a body that cannot be read,
    `set_status(repo, api, token, status) -> Request | None` says how the forge is told of a commit's status (`api` ""
    = by the repository's address); None when nobody is there to be told,
    `hook_place(repo, api, token) -> HookPlace | None` says how the webhooks of a repository are asked for; None when no
    API of anybody makes them,
    `pull_place(repo, api, token) -> PullPlace | None` says how its pull requests are asked for, or None.
    """

    delivery_id: Callable[[Mapping[str, str]], str | None]
    event_name: Callable[[Mapping[str, str]], str]
    verify: Callable[[Mapping[str, str], bytes, bytes], None]
    parse: Callable[[Mapping[str, str], bytes], Parsed]
    set_status: Callable[[str, str, str, CommitStatus], Request | None]
    hook_place: Callable[[str, str, str], HookPlace | None]
    pull_place: Callable[[str, str, str], PullPlace | None]


# --- notifiers ------------------------------------------------------------------------------------------------------


class Channel(Protocol):
    """Somebody to tell, set up by the server file: one address or several. Nothing it raises ever changes a run."""

    recipients: tuple[str, ...]  #: each is sent every notice by itself, so that one who cannot be reached harms nobody

    def fits(self, address: str) -> bool:
        """Say whether a flow file may name this address and this channel reaches it."""

    def send(self, notice: Notice, recipient: str) -> None:
        """Deliver one notice; its `delivery` goes along and is the same on every try.

        Raises RemoteError, then it is tried again, or Undeliverable, then it is not.
        """


class Notifier(Protocol):
    """A module in `notifiers/`: `Settings` (a pydantic model, `extra='forbid'`) and the class of its channels.

    A setting whose name ends in `_file` names a file with a secret; `Channel(settings, secrets)` is given its content
    under the name without `_file`, and raises UsageError for what it cannot use.
    """

    Settings: type[Any]
    Channel: Callable[[Any, Mapping[str, str]], Channel]
