"""Secrets of environments and projects: names and versions go out, a value only ever comes in."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from keepflow.wire.api.base import Answer, Items, Moment, Request


class Secret(Answer):
    """A secret of an environment: its name and version, never its value."""

    name: str
    version: int
    set_by: str
    at: Moment


class SecretValue(Request):
    """The value of a secret; it is sealed at once and never shown again."""

    value: str = Field(repr=False, min_length=1, max_length=64 * 1024)


class Secrets(Items):
    """The secrets an environment has, by name."""

    items: list[Secret]


class Bound(Answer):
    """Which runs get a secret of a project; without branches, tags and environments those whose branch reaches any."""

    flows: list[str]
    branches: list[str]
    tags: list[str]
    environments: list[str]


class JobSecret(Secret):
    """A secret of a project for its jobs: its name, version and binding, never its value."""

    bound: Bound


_Bound = Annotated[list[Annotated[str, Field(min_length=1, max_length=256)]], Field(max_length=50)]


class NewBinding(Request):
    """Which runs shall get a secret of a project."""

    flows: _Bound = Field(default_factory=list)
    branches: _Bound = Field(default_factory=list)
    tags: _Bound = Field(default_factory=list)
    environments: _Bound = Field(default_factory=list)


class JobSecretValue(SecretValue):
    """The value of a secret of a project, and perhaps a new binding; without one, the old one stays."""

    bound: NewBinding | None = None


class JobSecrets(Items):
    """The secrets a project has for its jobs, by name."""

    items: list[JobSecret]
