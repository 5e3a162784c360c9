"""Marks of testers: a person said of a deployment that its release is tested, or rejected it.

Marks are never deleted. The newest mark of a person is what that person says; a rejection stands until whoever made it
says otherwise.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """What a mark says."""

    TESTED = "tested"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True)
class Mark:
    """What one person said of one deployment of one image; `at` in microseconds."""

    person: str
    verdict: Verdict
    deployment: str
    identity: str
    note: str
    at: int


def standing(marks: Iterable[Mark]) -> tuple[Mark, ...]:
    """Return the newest mark of each person, oldest first; of two made at once the later in the list counts."""
    newest: dict[str, Mark] = {}
    for mark in sorted(marks, key=lambda mark: mark.at):
        newest.pop(mark.person, None)
        newest[mark.person] = mark
    return tuple(newest.values())


def rejections(marks: Iterable[Mark]) -> tuple[Mark, ...]:
    """Return the rejections that stand."""
    return tuple(mark for mark in standing(marks) if mark.verdict is Verdict.REJECTED)


def verifiers(marks: Iterable[Mark], people: Collection[str] | None) -> tuple[str, ...]:
    """Return who says `tested`, of these people only; None asks nobody in particular."""
    return tuple(
        mark.person
        for mark in standing(marks)
        if mark.verdict is Verdict.TESTED and (people is None or mark.person in people)
    )
