"""Which way a promote goes: forward to something newer, or back to something older, which is called a rollback."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Direction(StrEnum):
    """Where a release lies, seen from what serves."""

    FIRST = "first"  #: nothing serves
    SAME = "same"  #: the same commit
    FORWARD = "forward"
    BACK = "back"  #: older than what serves


@dataclass(frozen=True, slots=True)
class Point:
    """A release on the line of history: its commit and the number of the run that built it."""

    sha: str
    run: int


@dataclass(frozen=True, slots=True)
class Ancestry:
    """What git says of two commits: whether the release is contained in what serves, and the other way round."""

    in_serving: bool
    has_serving: bool


def direction(serving: Point | None, release: Point, ancestry: Ancestry) -> Direction:
    """Say which way a release lies from what serves.

    Where git knows no line between the two (diverged histories, a commit that is gone), the run numbers decide.
    """
    if serving is None:
        return Direction.FIRST
    if serving.sha == release.sha:
        return Direction.SAME
    if ancestry.in_serving != ancestry.has_serving:
        return Direction.BACK if ancestry.in_serving else Direction.FORWARD
    return Direction.BACK if release.run < serving.run else Direction.FORWARD
