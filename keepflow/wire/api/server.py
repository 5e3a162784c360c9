"""The server itself: projects, agents, and the server file."""

from __future__ import annotations

from pydantic import Field

from keepflow.wire.api.base import Answer, Items, Moment, Request
from keepflow.wire.desired import Desired, PlanLine


class Storage(Answer):
    """Where the disk of the master goes, in bytes; the last four are the rule of retention, 0 = no limit.

    `budget` is in bytes, `days` and `forget` in days.
    """

    logs: int
    artifacts: int
    workspaces: int  #: what jobs of runs that go on have handed on to other machines
    free: int
    total: int
    runs: int
    days: int
    budget: int
    forget: int


class Prune(Request):
    """Apply the rule of retention now, or only say what goes."""

    dry_run: bool = False


class LetGo(Answer):
    """A run whose logs and artifacts go, with the bytes they take."""

    run: str
    bytes: int


class Pruned(Items):
    """What goes, or went; `forgotten` counts the runs that are forgotten whole."""

    items: list[LetGo]
    applied: bool
    forgotten: int


class Project(Answer):
    """One repository the master knows; its secrets are never told."""

    name: str
    repo: str
    forge: str
    flow_file: str
    images: list[str]
    managed: bool
    environments: list[str]


class ForgeHook(Answer):
    """A webhook that keepflow keeps at a forge, or one that is not `wanted` any more and has to be removed there."""

    id: int
    project: str
    forge: str
    repo: str
    url: str  #: where it tells what happened
    wanted: bool
    state: str  #: due, kept, failed, left
    said: str  #: why it failed and what helps
    next_at: Moment | None  #: when the forge is asked next
    changed_at: Moment


class ForgeHooks(Items):
    """Webhooks at forges."""

    items: list[ForgeHook]


class Agent(Answer):
    """One agent, as it last described itself."""

    name: str
    capabilities: list[str]
    labels: list[str]
    slots: int
    running: list[str] = Field(default_factory=list)  #: runs whose script jobs it holds
    drained_by: str = ""  #: who gives it no new work; "" = nobody
    connected: bool
    offline_why: str
    version: str
    warnings: list[str]
    environments: list[str]
    key_id: str
    revoked: bool
    last_seen_at: Moment | None
    created_at: Moment


class NewAgent(Request):
    """The name an agent may join under."""

    name: str = Field(max_length=40)


class JoinToken(Answer):
    """A one-time join token; it is told this once."""

    agent: str
    token: str
    command: str


class Apply(Request):
    """A whole server file; with `dry_run` only the plan is made."""

    desired: Desired
    dry_run: bool = False


class Checked(Answer):
    """What would keep the projects of a server file from being built; nothing of it keeps it from being applied."""

    problems: list[str]


class Applied(Answer):
    """What an apply did or would do."""

    lines: list[PlanLine]
    applied: bool


class Projects(Items):
    """All projects the caller may see."""

    items: list[Project]


class Agents(Items):
    """All agents the caller may see."""

    items: list[Agent]
