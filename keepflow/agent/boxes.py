"""The containers of one job: boxes that its commands run in, on a network of the job's own, removed with the job."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from keepflow import errors
from keepflow.agent.environment import Places, of_box, of_remote
from keepflow.agent.logs import Log
from keepflow.agent.workplace import docker_config
from keepflow.config.agent_file import AgentFile, Containers, SshHost
from keepflow.config.where import BUILT_IMAGE, Box, Limits, Where
from keepflow.core import boxes, names
from keepflow.core.interpolation import interpolate
from keepflow.core.releases import ImageRef
from keepflow.core.text import quoted
from keepflow.executors.docker import Docker
from keepflow.executors.shell import Account
from keepflow.executors.ssh import Remote, Ssh
from keepflow.ports import Command, Executor
from keepflow.tools.engine import Engine
from keepflow.tools.files import read_private, write_atomic
from keepflow.tools.processes import run
from keepflow.wire.messages import Login, RunJob

log = Log(__name__)

_AWAY = 30.0  #: seconds to remove a checkout on another host


@dataclass(frozen=True, slots=True)
class Site:
    """What the containers of a job stand on: engine, limits and account of the host, and the places of the job."""

    engine: Engine
    allowed: Containers
    account: Account | None
    owner: boxes.Owner
    places: Places
    directory: Path  #: of the attempt; the agent's own
    env: Mapping[str, str]  #: of the job, as it began
    ssh: Mapping[str, SshHost] = field(default_factory=dict)  #: hosts that it may use

    @property
    def handed(self) -> Path:
        """The host's side of `boxes.HANDED`."""
        return self.directory / "handed"


@dataclass(slots=True)
class Hands:
    """What a job lends its containers: a way to run a command in its log, and to say something there."""

    run: Callable[[Command], int]  #: as the agent itself; ends with the job
    say: Callable[[str], None]
    built: Callable[[], str | None]  #: what the run built last
    check_stop: Callable[[], None]  #: raises when the job shall end


@dataclass(slots=True)
class Boxes:
    """Makes the containers of one job. `close` removes them all."""

    site: Site
    hands: Hands
    _network: bool = False
    _made: int = 0
    _of_job: dict[str, Docker] = field(default_factory=dict)

    @contextlib.contextmanager
    def executor(self, step: Where, job: Where, env: Mapping[str, str]) -> Iterator[Executor | None]:
        """Give what runs the commands of one step: its own box for as long as it runs, its job's, or None for neither.

        Raises Refused, UsageError and Unavailable.
        """
        host, wanted = _place(step, job)
        if host is not None:
            with self._there(host) as there:
                yield there
        elif wanted is None:
            yield None
        elif step.image is None:
            key = wanted.model_dump_json()
            if key not in self._of_job:
                self._of_job[key] = self._box(wanted, env)
            yield self._of_job[key]
        else:
            box = self._box(wanted, env)
            try:
                yield box
            finally:
                box.remove()

    def command(self, command: Command, step: Where, job: Where) -> Command:
        """Return a command as it is inside the box: with the variables that mean something there."""
        host, box = _place(step, job)
        if host is not None:
            env = of_remote(command.env, self.site.env, self._directory(host))
            return Command(command.argv, env, command.cwd, command.timeout)
        if box is None:
            return command
        places = self.site.places
        env = of_box(command.env, self.site.env, str(places.temporary), self._at(box))
        return Command(command.argv, env, places.workspace, command.timeout)

    def close(self) -> None:
        """Remove everything that was made; what the engine does not give up now is removed when the agent starts."""
        try:
            if self._network:
                remove(self.site.engine, self.site.owner.mark)
        except errors.KeepflowError as error:
            log.warning("containers of a job are left", fence=self.site.owner.fence, reason=error.message)
            self.hands.say(f"── the containers of this job could not be removed yet: {error.message}")
        finally:
            shutil.rmtree(self.site.handed, ignore_errors=True)

    @contextlib.contextmanager
    def _there(self, name: str) -> Iterator[Ssh]:
        """Give what runs commands on another host, in a copy of the checkout that is there for this step alone."""
        site, host = self.site, self.site.ssh[name]
        site.handed.mkdir(mode=0o711, exist_ok=True)
        key = Remote(host.address, host.port, host.user, str(host.key_file), host.host_key)
        there = Ssh(key, self._directory(name), site.handed)
        self.hands.say(f"── copies the checkout to {name}")
        try:
            if self.hands.run(there.laying(site.places.workspace, site.account)):
                raise errors.Unavailable(f"the checkout could not be copied to {name}", code="ssh")
            yield there
        finally:
            away = there.removing()
            if run(away.argv, timeout=_AWAY, env=away.env, check=False).exit_code:
                self.hands.say(f"── the copy of the checkout on {name} could not be removed")

    def _directory(self, name: str) -> str:
        return f"{self.site.ssh[name].directory}/{self.site.owner.named('checkout')}"

    def network(self) -> str:
        """Return the name of the job's own network, made when it is not there yet."""
        name, owner = self.site.owner.named("net"), self.site.owner
        if not self._network:
            self._network = True
            labels = [part for key, value in owner.labels.items() for part in ("--label", f"{key}={value}")]
            try:
                self.site.engine.docker("network", "create", *labels, name)
            except errors.CommandFailed as error:
                raise errors.Unavailable(
                    f"the job's network could not be made: {error.tail}", code="network"
                ) from error
        return name

    def image(self, text: str, env: Mapping[str, str]) -> str:
        """Return the id of an image that a flow names, pulled when this host does not have it."""
        reference = self._reference(text, env)
        found = self.site.engine.image_id(reference)
        if found is None:
            if text == BUILT_IMAGE:
                raise errors.Refused(f"{BUILT_IMAGE}: this host has no image {quoted(reference)}", code="no-image")
            self.hands.say(f"── pulls {reference}")
            argv = ("docker", "pull", "--quiet", "--", reference)
            self.hands.run(Command(argv, self.site.engine.env, self.site.directory))
            found = self.site.engine.image_id(reference)
        if found is None:
            raise errors.Unavailable(f"the image {quoted(reference)} could not be pulled", code="pull-failed")
        return found

    def limits(self, wanted: Limits) -> boxes.Limits:
        """Return what one container gets; raises Refused when a flow wants more than this host gives."""
        given = self.site.allowed
        for name in ("memory", "cpus", "pids"):
            asked, most = getattr(wanted, name), getattr(given, name)
            if asked is not None and most is not None and asked > most:
                shown = [f"{value / 10**6:g}MB" if name == "memory" else f"{value:g}" for value in (asked, most)]
                raise errors.Refused(
                    f"{name}: {shown[0]} is more than the {shown[1]} this host gives a container; "
                    f"see containers: {{{name}: …}} in its agent.yml",
                    code="over-limit",
                )
        return boxes.Limits(
            memory=wanted.memory or given.memory or 0,
            cpus=wanted.cpus or given.cpus or 0,
            pids=wanted.pids or given.pids or 0,
            disk=given.disk or 0,
        )

    def name(self, what: str) -> str:
        """Return the next name of a container of this job."""
        self._made += 1
        return self.site.owner.named(f"{self._made}-{what}")

    def _box(self, wanted: Box, env: Mapping[str, str]) -> Docker:
        site = self.site
        image, limits = self.image(wanted.name, env), self.limits(wanted)
        site.handed.mkdir(mode=0o711, exist_ok=True)
        user = (site.account.uid, site.account.gid) if site.account else (os.geteuid(), os.getegid())
        box = boxes.Box(
            name=self.name("box"),
            image=image,
            user="{}:{}".format(*user),
            workdir=self._at(wanted),
            network=self.network(),
            labels=site.owner.labels,
            mounts=_mounts(site.places, self._at(wanted), site.handed),
            limits=limits,
        )
        made = Docker(box, site.engine, site.handed, site.account)
        made.make()
        return made

    def _at(self, box: Box) -> str:
        return box.at or str(self.site.places.workspace)

    def _reference(self, text: str, env: Mapping[str, str]) -> str:
        if text == BUILT_IMAGE:
            built = self.hands.built()
            if built is None:
                raise errors.UsageError(f"{BUILT_IMAGE}: no step before this one built an image (or said image=… )")
            text = built
        else:
            try:
                text = interpolate(text, env)
            except KeyError as error:
                raise errors.UsageError(f"${{{error.args[0]}}} has no value in this job") from None
        try:
            ImageRef.parse(text)
        except ValueError as error:
            raise errors.UsageError(str(error)) from None
        return text


def _place(step: Where, job: Where) -> tuple[str | None, Box | None]:
    """Return the host or the box that a step runs in; what it says itself counts before what its job says."""
    nearest = step if step.ssh or step.image else job
    return nearest.ssh, nearest.image


def save_logins(engine: Engine, file: AgentFile) -> None:
    """Lay down the logins this host pulls images with, for the `docker` command of the agent alone.

    Raises Unavailable and UsageError for a password file that cannot be used.
    """
    if engine.config is None or not file.containers.flows:
        return
    logins = tuple(
        Login(address=address, username=login.username, password=read_private(login.password_file).decode().strip())
        for address, login in file.registries.items()
        if login.password_file
    )
    write_atomic(engine.config / "config.json", docker_config(logins), 0o600)


def wants(order: RunJob) -> bool:
    """Say whether a job has containers, or runs on another host."""
    return any(where for where in (order.where, *(step.where for step in order.steps)))


def remove(engine: Engine, mark: str) -> None:
    """Remove everything that was made for one attempt, by Compose as well. Raises Unavailable, CommandFailed."""
    engine.remove_labelled({names.LABEL_ATTEMPT: mark})
    _remove_compose(engine, mark)


def sweep(engine: Engine, agent: str, marks: Sequence[str]) -> int:
    """Remove what jobs of an agent that was killed left on the engine; `marks` are those of attempts it still knows."""
    found = engine.remove_labelled({names.LABEL_AGENT: agent})
    for mark in marks:
        found += _remove_compose(engine, mark)
    return len(found)


def _remove_compose(engine: Engine, mark: str) -> list[str]:
    """Remove what Compose made for an attempt, and the images that it named after its project."""
    project = boxes.compose_project(mark)
    found = engine.remove_labelled({names.LABEL_COMPOSE: project})
    named = ("--format", "{{.Repository}}:{{.Tag}}", "--filter", f"reference={project}*")
    images = engine.docker("image", "ls", *named).text.split()  # by name: others may have built the same
    if images:
        engine.docker("image", "rm", "--force", *images, check=False)
    return [*found, *images]


def _mounts(places: Places, at: str, handed: Path) -> list[boxes.Mount]:
    """Return all that a box has of this host: the checkout, the job's own scratch files, and what it is handed."""
    own = (places.output, places.env, places.temporary)
    for path in own:
        if path.is_symlink():  # a step on the host put it there
            raise errors.Refused(
                f"{path.name}: a step has put a link in the way of the job's own file", code="bad-place"
            )
    return [
        boxes.Mount(str(places.workspace), at),
        *(boxes.Mount(str(path), str(path)) for path in own),
        boxes.Mount(str(handed), boxes.HANDED, read_only=True),
    ]
