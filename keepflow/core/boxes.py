"""Containers of jobs as the `docker` command is told to make them: exactly these settings, whatever a flow file says.

A box is what commands of a job run in, a service is a container beside it. Neither ever gets privileges, the engine's
socket, a namespace of the host, or a folder of the host beyond what the agent itself mounts.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from keepflow.core import names

#: The project of an attempt at the start of a name that Compose made of it.
_OF_COMPOSE = re.compile(r"kf-job-[0-9]+-[0-9a-f]{12}-[0-9a-f]{16}(?=[_-])")
#: Where a box finds what the agent hands to its commands; read-only.
HANDED = "/run/keepflow"
#: What a service may do that images need which begin as root and step down to an account of their own.
_SERVICE_RIGHTS = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "NET_BIND_SERVICE", "SETGID", "SETUID")
_SERVICE_LOG = "2m"
# Stays until it is asked to end (its standard input is held open by the engine), and then passes that on to everything
# that runs in the container: `docker stop` alone tells the first process only.
_KEEPER = (
    "trap 'kill -TERM -1; while kill -0 -1 2>/dev/null; do sleep 0.05; done; exit 0' TERM; "
    "while read -r line; do :; done"
)
# Both streams become one, or what was written first to one could be read last; the variables come by a file, because
# everything else that is given to a container is in what `docker inspect` shows or in a list of processes.
_COMMAND = '. "$1"; shift; exec "$@" 2>&1'


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that one container may use; 0 is no limit."""

    memory: int = 0  #: bytes, and no swap beyond them
    cpus: float = 0
    pids: int = 0  #: processes and threads
    disk: int = 0  #: bytes of what it writes beside its mounts, where the engine can count them


@dataclass(frozen=True, slots=True)
class Mount:
    """A folder or file of the host in a box."""

    source: str
    target: str
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose a container is: one attempt at a job. `mark` is known to no other attempt of any agent."""

    agent: str  #: key id
    mark: str
    fence: int
    run: str  #: PROJECT#N
    job: str

    @property
    def labels(self) -> dict[str, str]:
        """What is on everything that is made for the attempt."""
        return {
            names.LABEL_AGENT: self.agent,
            names.LABEL_ATTEMPT: self.mark,
            names.LABEL_FENCE: str(self.fence),
            names.LABEL_RUN: self.run,
            names.LABEL_JOB: self.job,
        }

    def named(self, what: str) -> str:
        """Return the name of something that is made for the attempt."""
        return f"kf-job-{self.mark}-{what}"


def new_mark(agent: str, fence: int, lot: str) -> str:
    """Return the mark of an attempt: `lot`, 16 hex digits, is drawn for it. `agent` is the id of the agent's key."""
    return f"{fence}-{_short(agent)}-{lot}"


def mark_pattern(agent: str) -> str:
    """Return what all marks of an agent look like, as a regular expression."""
    return f"[0-9]+-{_short(agent)}-[0-9a-f]{{16}}"


def _short(agent: str) -> str:
    """Return what tells the agents of one engine apart, in letters that may be in any name."""
    return hashlib.sha256(agent.encode()).hexdigest()[:12]


def compose_project(mark: str) -> str:
    """Return the name of the Compose project of one attempt; everything it makes carries LABEL_COMPOSE with it."""
    return f"kf-job-{mark}"


def project_of(image: str) -> str:
    """Return the project that an image is named after which Compose built: `PROJECT_SERVICE` or `PROJECT-SERVICE`."""
    found = _OF_COMPOSE.match(image)
    return found[0] if found else ""


@dataclass(frozen=True, slots=True)
class Box:
    """A container that commands run in. `user` is `uid:gid`; `workdir` is where the checkout lies in it."""

    name: str
    image: str
    user: str
    workdir: str
    network: str
    labels: Mapping[str, str]
    mounts: Sequence[Mount] = ()
    limits: Limits = Limits()


@dataclass(frozen=True, slots=True)
class Service:
    """A container beside the box, reached under `alias`; `env_file` holds its variables, `NAME=value` lines."""

    name: str
    alias: str
    image: str
    network: str
    labels: Mapping[str, str]
    env_file: str = ""
    command: Sequence[str] = ()
    limits: Limits = Limits()


def box_argv(box: Box) -> list[str]:
    """Return the arguments of `docker` that make a box."""
    mounts = [part for mount in box.mounts for part in ("--mount", _mount(mount))]
    return [
        *_common(box.name, box.network, box.labels, box.limits),
        *("--user", box.user, "--cap-drop", "ALL", "--log-driver", "none", "--interactive"),
        *(*mounts, "--workdir", box.workdir, "--entrypoint", "sh", box.image, "-c", _KEEPER),
    ]


def service_argv(service: Service) -> list[str]:
    """Return the arguments of `docker` that make a service; it mounts nothing."""
    rights = [part for right in _SERVICE_RIGHTS for part in ("--cap-add", right)]
    variables = ("--env-file", service.env_file) if service.env_file else ()
    return [
        *_common(service.name, service.network, service.labels, service.limits),
        *("--network-alias", service.alias, "--hostname", service.alias, "--cap-drop", "ALL", *rights),
        *("--log-driver", "json-file", "--log-opt", f"max-size={_SERVICE_LOG}", *variables),
        *(service.image, *service.command),
    ]


def command_argv(name: str, variables: str, argv: Sequence[str]) -> list[str]:
    """Return the arguments of `docker` that run a command in a box, with the variables of a file below HANDED."""
    return ["exec", name, "sh", "-c", _COMMAND, "sh", f"{HANDED}/{variables}", *argv]


def _common(name: str, network: str, labels: Mapping[str, str], limits: Limits) -> list[str]:
    argv = ["create", "--pull", "never", "--init", "--name", name, "--network", network, "--restart", "no"]
    argv += ["--security-opt", "no-new-privileges"]
    for key, value in labels.items():
        argv += ["--label", f"{key}={value}"]
    if limits.memory:
        argv += ["--memory", str(limits.memory), "--memory-swap", str(limits.memory)]
    if limits.cpus:
        argv += ["--cpus", f"{limits.cpus:g}"]
    if limits.pids:
        argv += ["--pids-limit", str(limits.pids)]
    if limits.disk:
        argv += ["--storage-opt", f"size={limits.disk}"]
    return argv


def _mount(mount: Mount) -> str:
    """Return a mount as the command reads it: comma-separated, as in a CSV file."""
    parts = ["type=bind", f"source={mount.source}", f"target={mount.target}"]
    parts += ["readonly"] if mount.read_only else []
    return ",".join('"' + part.replace('"', '""') + '"' if set(part) & set(',"') else part for part in parts)
