"""Going forward and back: what a promote or a rollback would do, and the word to do it."""

from __future__ import annotations

from pydantic import Field

from keepflow.wire.api.base import Answer, Moment, Request
from keepflow.wire.api.deployments import Change
from keepflow.wire.api.rules import Guard


class Readiness(Answer):
    """What going back would take: `how` is hot, cold, re-pull or impossible; the sentence says why."""

    how: str
    sentence: str
    run: int | None
    identity: str | None


class Commit(Answer):
    """One commit; every text in it came from outside."""

    sha: str
    subject: str
    author: str
    at: Moment


class Preview(Answer):
    """What a promote would do, without doing it. `direction` is first, same, forward or back (then say `rollback`).

    `allowed` says that every rule is met; `breakable`, that breaking the glass may override those that are not. `order`
    is a sentence about how several `hosts` are switched, "" for one.
    """

    project: str
    environment: str
    run: int
    identity: str
    sha: str
    serving: str | None
    allowed: bool
    breakable: bool
    direction: str
    guards: list[Guard]
    commits: list[Commit]
    leaving: list[Commit]
    changes: list[Change]
    stop_first: bool
    hosts: list[str]
    order: str


class PreviewQuery(Request):
    """What would be promoted: a run number or a digest; `rollback` says that it may be older than what serves."""

    source: str = Field(max_length=120)
    rollback: bool = False


class Promotion(Request):
    """Promote one release: name a run or an identity (digest). `key` makes asking twice the same as asking once.

    `rollback` must be said to go back to something older than what serves. `break_glass` is the reason for overriding
    rules that may be overridden. `serving` is what you saw serving ("" for nothing): when it changed, you are refused.
    """

    run: int | None = Field(default=None, ge=1, le=2**31 - 1)
    identity: str | None = Field(default=None, max_length=80)
    note: str = Field(default="", max_length=2000)
    rollback: bool = False
    break_glass: str | None = Field(default=None, max_length=2000)
    serving: str | None = Field(default=None, max_length=80)
    key: str | None = Field(default=None, min_length=8, max_length=40, pattern=r"^[0-9A-Za-z-]+$")
    canary: list[int] = Field(default_factory=list, max_length=5)
    hold: int = Field(default=60, ge=1, le=24 * 3600)


class RollbackPreview(Answer):
    """What a rollback would do, without doing it; without a target there is no way back."""

    project: str
    environment: str
    run: int | None
    identity: str | None
    sha: str | None
    serving: str | None
    allowed: bool
    guards: list[Guard]
    ready: Readiness
    leaving: list[Commit]
    coming: list[Commit]
    changes: list[Change]


class RollbackQuery(Request):
    """Where to go back to: a run number or a digest; empty means what served before."""

    source: str = Field(default="", max_length=120)


class Rollback(Request):
    """Go back to a release that served here before; empty `source` means the last one.

    `key` makes asking twice the same as asking once.
    """

    source: str = Field(default="", max_length=120)
    reason: str = Field(default="", max_length=2000)
    key: str | None = Field(default=None, min_length=8, max_length=40, pattern=r"^[0-9A-Za-z-]+$")
