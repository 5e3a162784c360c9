"""The one open gate of an environment: which tested release waits for a person, and what closes it.

A gate is opened when a release has passed all that testers must say, and holds nothing. It never opens into a yes by
itself: a newer release supersedes it, time lets it lapse, a tester rejects it, a person promotes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class GateState(StrEnum):
    """State of a gate."""

    OPEN = "open"
    PROMOTED = "promoted"
    SUPERSEDED = "superseded"
    LAPSED = "lapsed"
    REJECTED = "rejected"


#: Legal moves. A closed gate never opens again: opening one anew is a new gate.
MOVES: dict[GateState, frozenset[GateState]] = {
    GateState.OPEN: frozenset(GateState) - {GateState.OPEN},
    **{state: frozenset[GateState]() for state in GateState if state is not GateState.OPEN},
}


@dataclass(frozen=True, slots=True)
class Gate:
    """One gate as the rules see it: the run whose release waits, and until when (microseconds)."""

    run: int
    state: GateState
    lapses_at: int


def may_close(gate: Gate, state: GateState) -> bool:
    """Say whether a gate may go into a state."""
    return state in MOVES[gate.state]


def gives_way(standing: Gate, run: int) -> bool:
    """Say whether an open gate gives way to the release of another run: a newer one, never an older one."""
    return run > standing.run


def lapsed(gate: Gate, now: int) -> bool:
    """Say whether an open gate's time is over."""
    return gate.state is GateState.OPEN and now >= gate.lapses_at
