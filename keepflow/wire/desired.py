"""What a server file asks for, with the files it names already read: the body of `POST /api/v1/apply`.

Secrets are in it, so it is never logged, echoed or stored as it is; the engine seals each at its place.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DesiredLogin(_Model):
    """A user at a registry."""

    username: str
    password: str = Field(repr=False)


class DesiredRegistry(_Model):
    """A registry, its CA certificate as PEM text ("" for a public one), and the logins the master may lend."""

    address: str
    ca_pem: str = ""
    push: DesiredLogin | None = None
    pull: DesiredLogin | None = None


class DesiredApi(_Model):
    """How the API of a project's forge is asked; `api` "" is the usual place on the host of its repository."""

    token: str = Field(repr=False, min_length=1)
    api: str = ""
    ca_pem: str = ""
    private: bool = False


class DesiredProject(_Model):
    """A project; the ssh key and known hosts stay files of the master's machine, only their paths are kept."""

    repo: str
    forge: str
    flow_file: str
    images: tuple[str, ...] = ()
    submodules: tuple[str, ...] = ()
    hook_secret: str | None = Field(default=None, repr=False)
    git_token: str | None = Field(default=None, repr=False)
    status: DesiredApi | None = None
    hook: DesiredApi | None = None
    git_ssh_key_file: str | None = None
    git_known_hosts_file: str | None = None


class DesiredEnvironment(_Model):
    """An environment and its hosts; `overrides` and `rules` as `core.deploys` and `core.rules` write them."""

    agents: tuple[str, ...] = Field(min_length=1)
    max_unavailable: int = Field(default=1, ge=1)
    on_failure: str = Field(default="revert", pattern="^(revert|stop)$")
    service: str
    branches: tuple[str, ...] = ()
    idle: int = 0  #: seconds that instances of branches stay unused
    overrides: dict[str, Any] = Field(default_factory=dict)
    promote_from: str | None = None
    verified_by: tuple[str, ...] = ()
    approved_by: tuple[str, ...] = ()
    rules: dict[str, Any] = Field(default_factory=dict)


class DesiredChannel(_Model):
    """Somebody to tell: the settings of its kind, and beside them what was in the files they name."""

    kind: str
    settings: dict[str, Any] = Field(default_factory=dict)
    secrets: dict[str, str] = Field(default_factory=dict, repr=False)
    on: tuple[str, ...] = Field(min_length=1)
    projects: tuple[str, ...] = ()


class DesiredRetention(_Model):
    """What is kept of ended runs (`core.retention.Rule`); 0 says nothing."""

    runs: int = Field(default=0, ge=0)
    days: int = Field(default=0, ge=0)
    budget: int = Field(default=0, ge=0)
    forget: int = Field(default=0, ge=0)


class Desired(_Model):
    """A whole server file. Environments are named `project/name`, in the order of the board."""

    url: str | None = None
    retention: DesiredRetention = DesiredRetention()
    registries: dict[str, DesiredRegistry] = Field(default_factory=dict)
    groups: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    projects: dict[str, DesiredProject] = Field(default_factory=dict)
    environments: dict[str, DesiredEnvironment] = Field(default_factory=dict)
    notify: dict[str, DesiredChannel] = Field(default_factory=dict)


class PlanLine(_Model):
    """One thing an apply does: `add`, `change` or `remove`, of what, and what exactly changes (never a secret)."""

    action: str
    what: str
    detail: str = ""
