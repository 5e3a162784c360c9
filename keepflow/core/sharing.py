"""How the jobs of a run share their files: each goes on where the jobs that it needs stopped.

A job that stands behind several others finds the files of all of them. What two jobs changed that knew nothing of each
other cannot both be right: the path is named, and nobody guesses.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from keepflow.core.flows import JobKind, PlannedJob


@dataclass(frozen=True, slots=True)
class Left:
    """What a job left in its workspace: the jobs whose work is in it, and who wrote each changed path last."""

    history: frozenset[str] = frozenset()
    stamps: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Merged:
    """Two workspaces as one: paths to take from the second, paths that both changed, and what that makes."""

    taken: tuple[str, ...]
    both: tuple[str, ...]
    left: Left


def merge(first: Left, second: Left) -> Merged:
    """Work out how the second workspace goes into the first one; a path that both changed stays as the first has it."""
    taken, both = [], []
    for path, stamp in second.stamps.items():
        mine = first.stamps.get(path)
        if mine == stamp or stamp in first.history:
            continue
        if mine is None or mine in second.history:
            taken.append(path)
        else:
            both.append(path)
    stamps = {**first.stamps, **{path: second.stamps[path] for path in taken}}
    return Merged(tuple(sorted(taken)), tuple(sorted(both)), Left(first.history | second.history, stamps))


def written(left: Left, job: str, paths: Sequence[str]) -> Left:
    """Return what a job leaves that began on `left` and changed these paths."""
    return Left(left.history | {job}, {**left.stamps, **dict.fromkeys(paths, job)})


def bases(jobs: Sequence[PlannedJob]) -> dict[str, tuple[str, ...]]:
    """Return for every script job the script jobs whose files it goes on with: the nearest ones that it comes after."""
    found: dict[str, tuple[str, ...]] = {}
    kinds = {job.key: job.kind for job in jobs}
    for job in jobs:
        nearest = [(need,) if kinds[need] == JobKind.SCRIPT else found[need] for need in job.needs]
        found[job.key] = tuple(dict.fromkeys(key for keys in nearest for key in keys))
    return {key: needs for key, needs in found.items() if kinds[key] == JobKind.SCRIPT}


def followers(jobs: Sequence[PlannedJob]) -> dict[str, int]:
    """Return for every script job how many others go on with its files."""
    wanted = Counter(need for needs in bases(jobs).values() for need in needs)
    return {job.key: wanted[job.key] for job in jobs if job.kind == JobKind.SCRIPT}
