"""Secrets of environments: names and versions go out, a value only ever comes in."""

from __future__ import annotations

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
