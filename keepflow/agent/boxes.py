"""The containers of one job: boxes that its commands run in, on a network of the job's own, removed with the job.

Everything has a name that follows from the attempt and the place that it is for (its `scope`: the job, or a step), so
what an earlier process of the agent made is found again by making it: it is there already.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from keepflow import errors
from keepflow.agent.box_notes import Notes
from keepflow.agent.environment import Places, of_box, of_remote
from keepflow.agent.kept_images import KeptImages
from keepflow.agent.leftovers import remove
from keepflow.agent.logs import Log
from keepflow.config.agent_file import Containers, SshHost
from keepflow.config.where import BUILT_IMAGE, Box, Limits, Where
from keepflow.core import boxes
from keepflow.core.interpolation import interpolate
from keepflow.core.releases import ImageRef
from keepflow.core.text import quoted
from keepflow.executors.docker import Docker
from keepflow.executors.shell import Account
from keepflow.executors.ssh import Remote, Ssh
from keepflow.ports import Command, Executor
from keepflow.tools.engine import Engine
from keepflow.tools.processes import run
from keepflow.wire.messages import RunJob

log = Log(__name__)

OF_JOB = "job"  #: the scope of what all steps of a job share
_MADE = "made"
_AWAY = 30.0  #: seconds to remove a checkout on another host


@dataclass(frozen=True, slots=True)
class Site:
    """What the containers of a job stand on: engine, limits and account of the host, and the places of the job."""

    engine: Engine
    kept_images: KeptImages
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


@dataclass(frozen=True, slots=True)
class Hands:
    """What a job lends its containers: a way to run a command in its log, and to say something there."""

    run: Callable[[str, Command], int]  #: as the agent itself, under a name of its own in the job; ends with the job
    tell: Callable[[str], None]  #: a line that is left out when it was told before a restart, and nothing else was not
    section: Callable[[], int]  #: the part of the log that is written: only what was told in it can be left out
    built: Callable[[], str | None]  #: what the run built last
    check_stop: Callable[[], None]  #: raises when the job shall end
    brake: Callable[[], contextlib.AbstractContextManager[None]]  #: what is waited for inside ends when the job shall


@dataclass(slots=True)
class Boxes:
    """Makes the containers of one job. `close` removes them all."""

    site: Site
    hands: Hands
    notes: Notes
    _of_job: Docker | None = None

    @contextlib.contextmanager
    def executor(self, scope: str, step: Where, job: Where, env: Mapping[str, str]) -> Iterator[Executor | None]:
        """Give what runs the commands of one step: its own box for as long as it runs, its job's, or None for neither.

        `scope` is the step's name among the places of the job. Raises Refused, UsageError and Unavailable.
        """
        host, wanted = _place(step, job)
        if host is not None:
            with self._there(scope, host) as there:
                yield there
        elif wanted is None:
            yield None
        elif step.image is None:
            if self._of_job is None:
                self._of_job = self._box(OF_JOB, wanted, env)
            yield self._of_job
        else:
            box = self._box(scope, wanted, env)
            try:
                yield box
            finally:
                box.remove()

    def tell(self, what: str, text: str) -> None:
        """Say a line once, however often the agent is restarted meanwhile; `what` is its name in the job."""
        name, section = f"told {what}", self.hands.section()
        told = self.notes.get(name)
        if told is None:
            self.notes.put(name, section)
        if told in (None, section):  # of this part of the log, who writes it knows whether the line came there
            self.hands.tell(text)

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
            if self.notes.get("network"):
                remove(self.site.engine, self.site.owner.mark)
        except errors.KeepflowError as error:
            log.warning("containers of a job are left", fence=self.site.owner.fence, reason=error.message)
            self.hands.tell(f"── the containers of this job could not be removed yet: {error.message}")
        finally:
            shutil.rmtree(self.site.handed, ignore_errors=True)

    @contextlib.contextmanager
    def _there(self, scope: str, name: str) -> Iterator[Ssh]:
        """Give what runs commands on another host, in a copy of the checkout that is there for this step alone."""
        site, there = self.site, self._ssh(name)
        site.handed.mkdir(mode=0o711, exist_ok=True)
        self.notes.put("host", name)
        self.tell(f"{scope} copies", f"── copies the checkout to {name}")
        well = False
        try:
            if self.hands.run(f"{scope}-laying", there.laying(site.places.workspace, site.account)):
                raise errors.Unavailable(f"the checkout could not be copied to {name}", code="ssh")
            yield there
            well = True
        finally:  # else a command may go on there that nobody waits for any more
            away = there.removing(end=not well)
            if run(away.argv, timeout=_AWAY, env=away.env, check=False).exit_code:
                self.hands.tell(f"── the copy of the checkout on {name} could not be removed")

    def forsake(self) -> None:
        """Remove and end what an earlier process of the agent made, when nobody takes it up. Raises nothing."""
        host = self.notes.get("host")
        with contextlib.suppress(errors.KeepflowError):
            if host in self.site.ssh:
                self.site.handed.mkdir(mode=0o711, exist_ok=True)
                away = self._ssh(host).removing(end=True)
                run(away.argv, timeout=_AWAY, env=away.env, check=False)
        self.notes.put("network", "begun")  # or by Compose: whatever bears the mark
        self.close()

    def _ssh(self, name: str) -> Ssh:
        host = self.site.ssh[name]
        key = Remote(host.address, host.port, host.user, str(host.key_file), host.host_key)
        return Ssh(key, self._directory(name), self.site.handed)

    def _directory(self, name: str) -> str:
        return f"{self.site.ssh[name].directory}/{self.site.owner.named('checkout')}"

    def network(self) -> str:
        """Return the name of the job's own network, made when it is not there yet."""
        name, owner = self.site.owner.named("net"), self.site.owner
        if self.notes.get("network") != _MADE:
            self.notes.put("network", "begun")
            labels = [part for key, value in owner.labels.items() for part in ("--label", f"{key}={value}")]
            try:
                self.site.engine.make_once("network", "create", *labels, name)
            except errors.CommandFailed as error:
                raise errors.Unavailable(
                    f"the job's network could not be made: {error.tail}", code="network"
                ) from error
            self.notes.put("network", _MADE)
        return name

    def image(self, use: str, text: str, env: Mapping[str, str]) -> str:
        """Return the id of an image that a flow names, pulled when this host does not have it.

        `use` says in the job what it is for: once it was found, that use keeps it.
        """
        known, pulls = f"{use} image", f"told {use} pulls"
        reference = self._reference(text, env) if self.notes.get(known) is None else text
        found: str | None = self.notes.get(known) or self.site.engine.image_id(reference)
        if found is None and text == BUILT_IMAGE:
            raise errors.Refused(f"{BUILT_IMAGE}: this host has no image {quoted(reference)}", code="no-image")
        if found is None or self.notes.get(pulls) is not None:
            self.tell(f"{use} pulls", f"── pulls {reference}")
        if found is None:
            argv = ("docker", "pull", "--quiet", "--", reference)
            self.hands.run(f"{use}-pull", Command(argv, self.site.engine.env, self.site.directory))
            found = self.site.engine.image_id(reference)
            if found is None:
                raise errors.Unavailable(f"the image {quoted(reference)} could not be pulled", code="pull-failed")
            self.site.kept_images.came(found, reference)
        else:
            self.site.kept_images.used(found)
        self.notes.put(known, found)
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

    def _box(self, scope: str, wanted: Box, env: Mapping[str, str]) -> Docker:
        site, made = self.site, f"{scope} box"
        image, limits = self.image(f"{scope}-box", wanted.name, env), self.limits(wanted)
        site.handed.mkdir(mode=0o711, exist_ok=True)
        user = (site.account.uid, site.account.gid) if site.account else (os.geteuid(), os.getegid())
        box = boxes.Box(
            name=site.owner.named(f"{scope}-box"),
            image=image,
            user="{}:{}".format(*user),
            workdir=self._at(wanted),
            network=self.network(),
            labels=site.owner.labels,
            mounts=_mounts(site.places, self._at(wanted), site.handed),
            limits=limits,
        )
        docker = Docker(box, site.engine, site.handed, site.account)
        if self.notes.get(made) is None:  # what has been made is made anew only for a command that is still to begin
            docker.make()
            self.notes.put(made, _MADE)
        return docker

    def _at(self, box: Box) -> str:
        return box.at or str(self.site.places.workspace)

    def _reference(self, text: str, env: Mapping[str, str]) -> str:
        built = self.hands.built() if text == BUILT_IMAGE else None
        if built is not None:
            text = built
        elif text == BUILT_IMAGE:
            raise errors.UsageError(f"{BUILT_IMAGE}: no step before this one built an image (or said image=… )")
        else:
            try:
                text = interpolate(text, env)
            except KeyError as error:
                raise errors.UsageError(f"${{{error.args[0]}}} has no value in this job") from None
        try:
            ImageRef.parse(text)
        except ValueError as error:
            raise errors.UsageError(str(error)) from None
        if not built:
            self.site.allowed.refuse(text)
        return text


def _place(step: Where, job: Where) -> tuple[str | None, Box | None]:
    """Return the host or the box that a step runs in; what it says itself counts before what its job says."""
    nearest = step if step.ssh or step.image else job
    return nearest.ssh, nearest.image


def wants(order: RunJob) -> bool:
    """Say whether a job has containers, or runs on another host."""
    return any(where for where in (order.where, *(step.where for step in order.steps)))


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
