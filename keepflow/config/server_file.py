"""The master's file, `keepflow.yml`: projects, environments, registries, groups; what no repository may decide."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, Strict, model_validator

from keepflow.config import channels
from keepflow.config.fields import (
    Duration,
    Env,
    FilePath,
    Flag,
    ImageName,
    Line,
    Model,
    Name,
    Names,
    OneOrMany,
    Patterns,
    Person,
    ProjectPath,
    RegistryAddress,
    RelativePath,
    Size,
    Texts,
    TimeZone,
    Url,
    bad,
)
from keepflow.config.validation import check, finish
from keepflow.config.yaml_loader import Document, load
from keepflow.core.deploys import Overrides
from keepflow.core.flows import Strategy
from keepflow.core.freeze import Window, problem
from keepflow.core.rules import LAPSE_AFTER, Rules
from keepflow.core.statuses import place_of
from keepflow.core.text import did_you_mean
from keepflow.errors import BadRemote, Problem
from keepflow.tools.git import check_remote_url

_NO_FORGE = "bare"  #: the forge of a repository that nobody but git serves
_LOGIN_IN_URL = re.compile(r"[a-z][a-z0-9+.-]*://[^/@]*:[^/@]*@")


def _remote(text: str) -> str:
    if _LOGIN_IN_URL.match(text):
        raise bad("inline-secret", "must not hold a password; name a file under git: token_file")
    if not text or text.startswith("-") or not text.isprintable() or " " in text:
        raise bad("bad-remote", "must be the address of a git repository")
    return text


class RegistryUser(Model):
    """A login at a registry; the password is in a file, never here."""

    username: Line
    password_file: FilePath


class Registry(Model):
    """A registry the master lends logins for: `push` to build jobs, `pull` shown to whoever sets up an agent."""

    address: RegistryAddress
    ca_file: FilePath | None = None
    push: RegistryUser | None = None
    pull: RegistryUser | None = None


class Git(Model):
    """How the master reads a repository; neither token nor key ever leaves it."""

    token_file: FilePath | None = None
    ssh_key_file: FilePath | None = None
    known_hosts: FilePath | None = None


class ForgeApi(Model):
    """How the API of a forge is asked; `private` allows http and addresses of private networks."""

    token_file: FilePath
    api: Url | None = None  #: of the forge's API; without it the usual place on the host of `repo`
    ca_file: FilePath | None = None
    private: Flag = False


def _module_place(text: str) -> str:
    try:
        check_remote_url(f"{text.rstrip('/')}/x", allow_local=True)
    except BadRemote as error:
        raise bad("bad-address", error.message) from None
    return text


ModulePlace = Annotated[str, AfterValidator(_module_place)]


class Project(Model):
    """One git repository the master knows."""

    repo: Annotated[str, AfterValidator(_remote)]
    git: Git = Git()
    forge: Name = "github"
    hook_secret_file: FilePath | None = None
    flow_file: RelativePath = ".keepflow.yml"
    images: Annotated[tuple[ImageName, ...], OneOrMany()] = ()  #: repositories its runs may release
    submodules: Annotated[tuple[ModulePlace, ...], OneOrMany()] = ()  #: where submodules may come from: addresses
    status: ForgeApi | None = None  #: without it the forge is told nothing
    hook: ForgeApi | None = None  #: with it keepflow keeps its own webhook at the forge


class Freeze(Model):
    """A time in which nothing is promoted: weekly (`Fri 16:00` to `Mon 08:00`) or dated (`2026-12-24`)."""

    start: Line = Field(alias="from")
    end: Line = Field(alias="to")
    tz: TimeZone
    why: Line | None = None

    @model_validator(mode="after")
    def _is_a_window(self) -> Freeze:
        if sentence := problem(self.start, self.end):
            raise bad("bad-freeze", sentence)
        return self

    @property
    def window(self) -> Window:
        """The window as the rules know it."""
        return Window(self.start, self.end, self.tz, self.why or "")


class Environment(Model):
    """Where one release serves, what reaches it, and the only settings it may change."""

    agent: Name | None = None  #: its one host
    agents: Names = ()  #: its hosts, in the order in which they are switched
    max_unavailable: Annotated[int, Field(ge=1, le=100)] = 1  #: hosts that are switched at once
    on_failure: Literal["revert", "stop"] = "revert"  #: what becomes of hosts already switched when one fails
    service: Name
    instance: Name = "main"
    branches: Patterns = ()
    idle: Duration = 14 * 86400.0  #: how long a branch's instance stays that nothing is deployed to; 0 = for ever
    env: Env = Field(default_factory=dict)
    args: Texts | None = None
    stop_timeout: Duration | None = None
    strategy: Strategy | None = None
    promote_from: Name | None = None
    max_age: Duration | None = None  #: seconds a deployment in `promote_from` counts as tested
    verified_by: Names = ()
    approved_by: Names = ()
    four_eyes: Flag = False  #: who approves is not who verified
    freeze: Annotated[tuple[Freeze, ...], Field(max_length=100)] = ()
    lapse_after: Duration = LAPSE_AFTER  #: seconds an open gate waits for a person

    @property
    def rules(self) -> Rules:
        """What a promote to it must keep beside the lists of groups and branches."""
        windows = tuple(freeze.window for freeze in self.freeze)
        return Rules(self.four_eyes, self.max_age, windows, self.lapse_after)

    @property
    def hosts(self) -> tuple[str, ...]:
        """The agents of its hosts, however they are written."""
        return (self.agent,) if self.agent else self.agents

    @property
    def overrides(self) -> Overrides:
        """The settings this environment lays over a release's description."""
        return Overrides(dict(self.env), self.args, self.stop_timeout, self.strategy)


class Retention(Model):
    """Which logs and artifacts of ended runs are kept; what is beyond any of these is let go of."""

    runs: Annotated[int, Strict(), Field(ge=1)] | None = None  #: newest runs of each flow
    days: Annotated[int, Strict(), Field(ge=1, le=36500)] | None = None
    budget: Size | None = None  #: all of them together; the oldest go first
    forget: Annotated[int, Strict(), Field(ge=90, le=36500)] | None = None  #: days after which runs themselves go

    @model_validator(mode="after")
    def _says_something(self) -> Retention:
        if not any((self.runs, self.days, self.budget, self.forget)):
            raise bad("empty", "says nothing; write runs, days, budget or forget, or several")
        return self


class ServerFile(Model):
    """A whole server file. Environments are named `project/name`."""

    url: Url | None = None
    retention: Retention | None = None  #: without it everything is kept
    registries: dict[Name, Registry] = Field(default_factory=dict)
    groups: dict[Name, Annotated[tuple[Person, ...], OneOrMany()]] = Field(default_factory=dict)
    projects: dict[Name, Project] = Field(default_factory=dict)
    environments: dict[ProjectPath, Environment] = Field(default_factory=dict)
    notify: dict[Name, Any] = Field(default_factory=dict)  #: `channels.Channel`, each of a kind of its own


def load_server(text: str | bytes, file: str = "keepflow.yml", base_dir: Path | None = None) -> ServerFile:
    """Read a server file; `*_file` paths are relative to `base_dir` (default: the file's own folder).

    Raises ConfigError with every problem, those between the parts (unknown project, cycle of promotions) included.
    """
    document = load(text, file)
    base = base_dir if base_dir is not None else Path(file).absolute().parent
    server, problems = check(ServerFile, document.value, document, context={"base": base})
    if server is None:
        finish(document, problems)
        raise AssertionError("a refused file has problems")
    told, more = channels.read(server.notify, document, base)
    more += _channel_problems(server, told, document)
    finish(document, [*_project_problems(server, document), *_environment_problems(server, document), *more])
    return server.model_copy(update={"notify": told})


def _project_problems(server: ServerFile, document: Document) -> Iterator[Problem]:
    for name, project in server.projects.items():
        git, path = project.git, ("projects", name, "git")
        if git.token_file and git.ssh_key_file:
            yield document.problem(path, "conflict", f"projects.{name}.git: token_file or ssh_key_file, not both")
        if bool(git.ssh_key_file) != bool(git.known_hosts):
            sentence = f"projects.{name}.git: ssh_key_file and known_hosts belong together"
            yield document.problem(path, "missing", sentence)
        if project.hook and (project.forge == _NO_FORGE or place_of(project.repo, "", "") is None):
            sentence = f"projects.{name}.hook: no API makes a hook there; `keepflow hook show` prints a post-receive"
            yield document.problem(("projects", name, "hook"), "no-hook-api", sentence, key=True)
    addresses: dict[str, str] = {}
    for name, registry in server.registries.items():
        if registry.address in addresses:
            sentence = f"registries.{name}: {registry.address} is already the registry {addresses[registry.address]!r}"
            yield document.problem(("registries", name, "address"), "duplicate-registry", sentence)
        addresses.setdefault(registry.address, name)


def _channel_problems(
    server: ServerFile, told: Mapping[str, channels.Channel], document: Document
) -> Iterator[Problem]:
    for name, channel in told.items():
        for index, project in enumerate(channel.projects):
            if project not in server.projects:
                hint = did_you_mean(project, server.projects)
                sentence = f"notify.{name}.projects: no project {project!r} under projects{hint}"
                yield document.problem(("notify", name, "projects", index), "unknown-project", sentence)


def _environment_problems(server: ServerFile, document: Document) -> Iterator[Problem]:
    services: dict[tuple[str, str, str], str] = {}
    for key, environment in server.environments.items():
        path = ("environments", key)
        project = key.partition("/")[0]
        if project not in server.projects:
            hint = did_you_mean(project, server.projects)
            sentence = f"environments.{key}: no project {project!r} under projects{hint}"
            yield document.problem(path, "unknown-project", sentence, key=True)
        yield from _host_problems(document, key, environment)
        for host in dict.fromkeys(environment.hosts):
            place = (host, environment.service, environment.instance)
            if place in services:
                sentence = (
                    f"environments.{key}: service {place[1]!r} on {place[0]!r} already belongs to {services[place]!r}"
                )
                yield document.problem((*path, "service"), "duplicate-service", sentence)
            services.setdefault(place, key)
        yield from _reach_problems(server, document, key, environment)
        yield from _group_problems(server, document, key, environment)


def _host_problems(document: Document, key: str, environment: Environment) -> Iterator[Problem]:
    path = ("environments", key)
    if environment.agent and environment.agents:
        sentence = f"environments.{key}: agent names one host, agents names several; write one of the two"
        yield document.problem((*path, "agents"), "conflict", sentence, key=True)
    elif not environment.hosts:
        sentence = f"environments.{key}: name its host (agent: NAME) or its hosts (agents: [NAME, NAME])"
        yield document.problem(path, "missing", sentence, key=True)
    for index, agent in enumerate(environment.agents):
        if agent in environment.agents[:index]:
            sentence = f"environments.{key}.agents: {agent} is named twice"
            yield document.problem((*path, "agents", index), "duplicate-host", sentence)
    if len(environment.hosts) == 1:
        for setting in ("max_unavailable", "on_failure"):
            if setting in environment.model_fields_set:
                sentence = f"environments.{key}: {setting} means nothing with one host"
                yield document.problem((*path, setting), "needs-hosts", sentence, key=True)


def _reach_problems(server: ServerFile, document: Document, key: str, environment: Environment) -> Iterator[Problem]:
    """Find what is wrong with the way releases reach an environment."""
    path = ("environments", key)
    source = environment.promote_from
    if source is None:
        if not environment.branches:
            sentence = f"environments.{key}: nothing reaches it; write branches or promote_from"
            yield document.problem(path, "unreachable", sentence)
        for setting in ("verified_by", "approved_by", "four_eyes", "max_age", "freeze", "lapse_after"):
            if setting in environment.model_fields_set:
                sentence = f"environments.{key}: {setting} means nothing without promote_from"
                yield document.problem((*path, setting), "needs-promote-from", sentence, key=True)
        return
    if environment.four_eyes and not environment.verified_by:
        sentence = f"environments.{key}: four_eyes needs verified_by: it keeps who verified from approving"
        yield document.problem((*path, "four_eyes"), "needs-verified-by", sentence, key=True)
    for setting in ("max_age", "lapse_after"):
        if setting in environment.model_fields_set and not getattr(environment, setting):
            sentence = f"environments.{key}: {setting} of no time at all lets nothing through"
            yield document.problem((*path, setting), "out-of-range", sentence)
    project = key.partition("/")[0]
    siblings = {name.partition("/")[2] for name in server.environments if name.partition("/")[0] == project}
    if source not in siblings:
        sentence = f"environments.{key}: no environment '{project}/{source}'{did_you_mean(source, siblings)}"
        yield document.problem((*path, "promote_from"), "unknown-environment", sentence)
    elif _promotes_from_itself(server, key):
        sentence = f"environments.{key}: promote_from leads back to this environment, so nothing ever reaches it"
        yield document.problem((*path, "promote_from"), "cycle", sentence)


def _promotes_from_itself(server: ServerFile, key: str) -> bool:
    project, seen, current = key.partition("/")[0], set[str](), key
    while current not in seen:
        seen.add(current)
        environment = server.environments.get(current)
        if environment is None or environment.promote_from is None:
            return False
        current = f"{project}/{environment.promote_from}"
    return current == key


def _group_problems(server: ServerFile, document: Document, key: str, environment: Environment) -> Iterator[Problem]:
    for setting in ("verified_by", "approved_by"):
        for index, group in enumerate(getattr(environment, setting)):
            if group not in server.groups:
                sentence = (
                    f"environments.{key}.{setting}: no group {group!r} under groups{did_you_mean(group, server.groups)}"
                )
                yield document.problem(("environments", key, setting, index), "unknown-group", sentence)
