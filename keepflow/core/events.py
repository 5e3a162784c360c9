"""What happened at a repository or a desk, in keepflow's own words."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

#: How far the code of an event is trusted: its branch reaches some environment, it does not, nobody here wrote it.
Trust = Literal["protected", "other", "fork"]


class EventKind(StrEnum):
    """The kinds of events a flow can be started by."""

    PUSH = "push"
    TAG = "tag"
    PULL_REQUEST = "pull_request"
    MANUAL = "manual"
    SCHEDULE = "schedule"


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened, with ref, commit and who; every text field came from outside and is never trusted.

    `ref` is a full ref name (`refs/heads/dev`), `sha` the commit to build (40 or 64 hex), `before` the commit the ref
    pointed to earlier (None when new). `actor` is the verified sender the forge names, never the commit's author.
    A pull request has a `target` (the branch it goes into, as a full ref name) and a `number`; of a `fork` nobody here
    vouches for the code. What is built of it is its merge with the target: then `head` is the commit the ref is at.
    The clock means one `flow` only, and `note` says when.
    """

    kind: EventKind
    ref: str
    sha: str
    before: str | None = None
    forced: bool = False
    message: str = ""
    author: str = ""
    actor: str = ""
    url: str = ""
    inputs: dict[str, str] = field(default_factory=dict)
    target: str = ""
    number: int = 0
    fork: bool = False
    head: str = ""
    flow: str = ""
    note: str = ""

    @property
    def tip(self) -> str:
        """The commit that the ref is at: what is built, or what was merged for it."""
        return self.head or self.sha

    @property
    def target_branch(self) -> str:
        """The branch a pull request goes into; empty for everything else."""
        return self.target.removeprefix("refs/heads/")

    @property
    def branch(self) -> str | None:
        """The branch name, when the ref is a branch."""
        return self.ref.removeprefix("refs/heads/") if self.ref.startswith("refs/heads/") else None

    @property
    def tag(self) -> str | None:
        """The tag name, when the ref is a tag."""
        return self.ref.removeprefix("refs/tags/") if self.ref.startswith("refs/tags/") else None

    def to_json(self) -> dict[str, Any]:
        """Return the event as plain data for the store; spelt out, because every hook pays for it."""
        return {
            "kind": self.kind.value,
            "ref": self.ref,
            "sha": self.sha,
            "before": self.before,
            "forced": self.forced,
            "message": self.message,
            "author": self.author,
            "actor": self.actor,
            "url": self.url,
            "inputs": dict(self.inputs),
            "target": self.target,
            "number": self.number,
            "fork": self.fork,
            "head": self.head,
            "flow": self.flow,
            "note": self.note,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Event:
        """Read an event back from the store."""
        return cls(**{**data, "kind": EventKind(data["kind"])})


@dataclass(frozen=True, slots=True)
class Parsed:
    """What a delivery turned out to be: an event to send to flows, or a final word that no flow file can change.

    Exactly one of `event` and `word` is set. `word` is a code: ping, deleted, closed, no-commit,
    unknown-event, ignored.
    """

    event: Event | None = None
    word: str = ""
    sentence: str = ""
    closed: Event | None = None  #: the pull request that the word `closed` is about
