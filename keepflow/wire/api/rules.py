"""The rules of an environment at work: marks, gates, locks, glass that was broken, quarantine."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from keepflow.wire.api.base import Answer, Items, Moment, Request


class Quarantine(Answer):
    """A release that did badly in an environment; it does not go there again until somebody lifts that."""

    identity: str
    deployment: str
    code: str
    sentence: str
    at: Moment
    lifted_by: str | None
    lifted_why: str
    lifted_at: Moment | None


class QuarantineQuery(Request):
    """Whether those that were lifted are wanted, too."""

    lifted: bool = False


class Lift(Request):
    """Let a release (its digest) go to an environment again, and say why."""

    identity: str = Field(max_length=80)
    why: str = Field(min_length=1, max_length=2000)


class Guard(Answer):
    """One rule of a promote: met or not, with its sentence, and whether breaking the glass may override it."""

    code: str
    met: bool
    sentence: str
    overridable: bool


class MarkRequest(Request):
    """What a tester says of a deployment: name it, or a run whose release served there; else what serves is meant."""

    verdict: Literal["tested", "rejected"]
    note: str = Field(default="", max_length=2000)
    deployment: str | None = Field(default=None, max_length=40)
    run: int | None = Field(default=None, ge=1, le=2**31 - 1)


class Mark(Answer):
    """What a tester said of one deployment of one image."""

    person: str
    verdict: str
    note: str
    deployment: str
    identity: str
    at: Moment


class LockRequest(Request):
    """Why an environment is locked; everybody who waits reads it."""

    why: str = Field(min_length=1, max_length=500)


class Lock(Answer):
    """Who holds an environment still, why and since when; all null when nobody does."""

    locked_by: str | None
    locked_why: str | None
    locked_at: Moment | None


class Gate(Answer):
    """The release that waits at an environment's gate, what it waits for, and when it lapses."""

    run: int
    identity: str
    sentence: str
    opened_at: Moment
    lapses_at: Moment


class GateRequest(Request):
    """Which release to open the gate for anew: a run number or a digest."""

    source: str = Field(min_length=1, max_length=120)


class Overridden(Answer):
    """One rule that was not kept."""

    code: str
    sentence: str


class BrokenGlass(Answer):
    """A deployment outside the rules; it stays in sight until somebody else than `actor` acknowledged it."""

    number: int
    environment: str
    deployment: str
    actor: str
    reason: str
    overridden: list[Overridden]
    at: Moment
    acknowledged_by: str | None
    acknowledged_at: Moment | None


class Quarantines(Items):
    """Releases under quarantine, newest first."""

    items: list[Quarantine]


class Marks(Items):
    """Every mark of what serves in an environment, oldest first; the newest of a person counts."""

    items: list[Mark]


class BrokenGlasses(Items):
    """What nobody has acknowledged yet, oldest first."""

    items: list[BrokenGlass]
