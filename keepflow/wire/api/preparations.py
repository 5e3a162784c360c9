"""What is done on a host ahead of a promote: images laid there, rehearsals."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from keepflow.wire.api.base import Answer, Moment, Request
from keepflow.wire.api.rules import Guard


class Preparation(Answer):
    """An image laid on a host ahead of a promote (`stage`), or a rehearsal; it never changes what serves."""

    id: str
    environment: str
    host: str
    kind: str
    phase: str
    reason_code: str
    reason: str
    identity: str
    requested_by: str
    receipt: dict[str, Any] | None
    log_tail: str
    requested_at: Moment
    finished_at: Moment | None


class Readying(Answer):
    """How ready the hosts of an environment are for a promote: which have the image, what its rehearsals said."""

    on_host: list[str]
    hosts: list[str]
    rehearsals: list[Preparation]
    may_rehearse: bool
    guards: list[Guard]
    loses_hot: bool = Field(description="a rehearsal would take the slot of a container kept hot for a rollback")


class Rehearsal(Request):
    """Rehearse a release (run number or digest) on the hosts of an environment. `key` makes asking twice safe."""

    source: str = Field(max_length=120)
    key: str | None = Field(default=None, min_length=8, max_length=40, pattern=r"^[0-9A-Za-z-]+$")
