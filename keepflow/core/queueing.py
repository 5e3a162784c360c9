"""Whose turn it is when agents are free: every project gets its share, and within one the most urgent is first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Waiting:
    """A job that waits for an agent, by its row id; of one project the lowest `rank` (`core.priority`) is first.

    `served` tells when its project was given a job last: a lower one is longer ago.
    """

    job: int
    project: int
    rank: int
    served: int = 0


def in_turn(waiting: Sequence[Waiting], holding: Mapping[int, int]) -> list[int]:
    """Return the jobs in the order in which they are to be offered a free slot.

    `holding` says how many jobs of a project are with agents now. The project that has least is first, counting what
    would be given to it before, and of those the one that got its last one longest ago; so a project with one job waits
    for no project with a thousand.
    """
    share = dict(holding)
    turns: list[tuple[int, int, int, int]] = []
    for one in sorted(waiting, key=lambda one: (one.rank, one.job)):
        turns.append((share.get(one.project, 0), one.served, one.rank, one.job))
        share[one.project] = share.get(one.project, 0) + 1
    return [turn[-1] for turn in sorted(turns)]


@dataclass(frozen=True, slots=True)
class Seat:
    """What an agent can take: its labels, its kinds of steps, and how many of its slots are free."""

    agent: int
    labels: frozenset[str]
    kinds: frozenset[str]
    slots: int
    free: int


def fits(seat: Seat, labels: frozenset[str], kinds: frozenset[str]) -> bool:
    """Say whether an agent could carry a job out, if it had a free slot."""
    return labels <= seat.labels and kinds <= seat.kinds


def choose(seats: Sequence[Seat]) -> int | None:
    """Return the agent that gets a job all of these fit: the one with the largest share of its slots free, or None.

    Of equal ones the one with fewer labels gets it: who can do what few can is kept for those that need it.
    """
    free = [seat for seat in seats if seat.free > 0]
    if not free:
        return None
    return min(free, key=lambda seat: (-seat.free / seat.slots, len(seat.labels), seat.agent)).agent
