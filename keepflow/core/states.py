"""States of runs and jobs, phases of deployments, and which moves between them are legal."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """State of a run or a job."""

    QUEUED = "queued"  #: accepted, no agent yet
    WAITING = "waiting"  #: needs a person, lock, label or agent; the sentence says which
    RUNNING = "running"  #: an agent holds it
    SUCCEEDED = "succeeded"  #: all parts succeeded
    FAILED = "failed"  #: the reason says whose fault: exit, timeout, system, config, deploy codes
    CANCELLED = "cancelled"  #: by a person or a rule; says by whom
    SKIPPED = "skipped"  #: by message, path filter, condition, or a need that failed
    SUPERSEDED = "superseded"  #: a newer push or a newer fence replaced it
    LOST = "lost"  #: the agent vanished and nobody knows; never said of a deployment


FINAL = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED, State.SKIPPED, State.SUPERSEDED, State.LOST})
LIVE = frozenset(State) - FINAL

#: Legal moves. A final state never moves again: a second try is a new attempt, never an overwrite.
MOVES: dict[State, frozenset[State]] = {
    State.QUEUED: frozenset(
        {State.WAITING, State.RUNNING, State.FAILED, State.CANCELLED, State.SKIPPED, State.SUPERSEDED, State.LOST}
    ),
    State.WAITING: frozenset(
        {
            State.QUEUED,
            State.RUNNING,
            State.SUCCEEDED,
            State.FAILED,
            State.CANCELLED,
            State.SKIPPED,
            State.SUPERSEDED,
        }
    ),
    State.RUNNING: frozenset(
        {
            State.QUEUED,
            State.WAITING,
            State.SUCCEEDED,
            State.FAILED,
            State.CANCELLED,
            State.SUPERSEDED,
            State.LOST,
        }
    ),
    **{state: frozenset() for state in FINAL},
}


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a state is what it is: a stable code for machines and a sentence for people."""

    code: str
    sentence: str


class Phase(StrEnum):
    """Phase of a deployment; the first two live on the master, the others in the agent's journal."""

    QUEUED = "queued"  #: the order is written, no agent has it
    OFFERED = "offered"  #: the order was sent
    ACCEPTED = "accepted"
    PREFLIGHT = "preflight"
    PULLING = "pulling"
    PREPARING = "preparing"
    STOPPING = "stopping"  #: stop-first services only: maintenance page on, old one stopping
    STARTING = "starting"
    GATING = "gating"
    CANARY = "canary"  #: a share of the visitors gets the new one, the others the old one
    SWITCHING = "switching"
    PROVING = "proving"
    WATCHING = "watching"
    DRAINING = "draining"
    DONE = "done"
    FAILED = "failed"  #: the old one was never touched
    REVERTED = "reverted"  #: the new one served (or the old one was stopped) and everything was put back
    UNKNOWN = "unknown"  #: outcome cannot be read; the text says what serves now


PHASE_ORDER: tuple[Phase, ...] = (
    Phase.QUEUED,
    Phase.OFFERED,
    Phase.ACCEPTED,
    Phase.PREFLIGHT,
    Phase.PULLING,
    Phase.PREPARING,
    Phase.STOPPING,
    Phase.STARTING,
    Phase.GATING,
    Phase.CANARY,
    Phase.SWITCHING,
    Phase.PROVING,
    Phase.WATCHING,
    Phase.DRAINING,
)
OUTCOMES = frozenset({Phase.DONE, Phase.FAILED, Phase.REVERTED, Phase.UNKNOWN})
#: After one of these the old container may no longer be what answers, so an error there is `reverted`, not `failed`.
TOUCHED = frozenset({Phase.STOPPING, Phase.CANARY, Phase.SWITCHING, Phase.PROVING, Phase.WATCHING, Phase.DRAINING})


def may_move(old: State, new: State) -> bool:
    """Say whether a run or job may go from one state to another."""
    return new in MOVES[old]


def phase_may_move(old: Phase, new: Phase) -> bool:
    """Say whether a deployment may go from one phase to another: forward only, or to an outcome; unknown may settle."""
    if old == Phase.UNKNOWN:
        return new in OUTCOMES - {Phase.UNKNOWN}
    if old in OUTCOMES:
        return False
    return new in OUTCOMES or PHASE_ORDER.index(new) > PHASE_ORDER.index(old)


def job_state_of(outcome: Phase) -> State:
    """Map a deployment's outcome to the state of its job (DESIGN: unknown waits, locked, until reconciled)."""
    if outcome == Phase.DONE:
        return State.SUCCEEDED
    return State.WAITING if outcome == Phase.UNKNOWN else State.FAILED
