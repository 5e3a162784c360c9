"""What serves on a host and was not deployed there, and the two ways to mend it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from keepflow.wire.api.base import Answer, Request


class Difference(Answer):
    """One thing on a host that is not as it was deployed."""

    what: str
    expected: str
    found: str


class HostDrift(Answer):
    """How one host differs from what was deployed there; no difference, no drift."""

    agent: str
    differences: list[Difference]


class Drift(Answer):
    """How an environment differs from what was deployed, host by host."""

    environment: str
    drifts: bool
    hosts: list[HostDrift]


class MendDrift(Request):
    """`adopt`: what serves is expected from now on, nothing is touched. `restore`: what was deployed serves again."""

    way: Literal["adopt", "restore"]
    reason: str = Field(default="", max_length=2000)
    key: str | None = Field(default=None, min_length=8, max_length=40, pattern=r"^[0-9A-Za-z-]+$")
