"""States and phases: every pair is decided, and what has ended stays ended."""

from __future__ import annotations

import itertools

import pytest

from keepflow.core.states import (
    FINAL,
    LIVE,
    MOVES,
    OUTCOMES,
    PHASE_ORDER,
    TOUCHED,
    Phase,
    State,
    job_state_of,
    may_move,
    phase_may_move,
)


def test_every_state_has_its_row_of_moves() -> None:
    assert set(MOVES) == set(State)
    assert set(State) == FINAL | LIVE
    assert not FINAL & LIVE


@pytest.mark.parametrize(("old", "new"), list(itertools.product(State, State)))
def test_a_state_moves_only_along_the_table(old: State, new: State) -> None:
    allowed = may_move(old, new)
    assert allowed == (new in MOVES[old])
    if old in FINAL:
        assert not allowed, "what has ended stays ended"
    if old == new:
        assert not allowed, "a move to itself would write a second reason over the first"


@pytest.mark.parametrize("state", sorted(LIVE))
def test_every_live_state_can_end_in_failure_and_be_cancelled(state: State) -> None:
    assert may_move(state, State.FAILED)
    assert may_move(state, State.CANCELLED)


def test_a_gate_that_nobody_answers_is_never_lost() -> None:
    assert not may_move(State.WAITING, State.LOST)


@pytest.mark.parametrize(("old", "new"), list(itertools.product(Phase, Phase)))
def test_a_deployment_only_goes_forward_or_to_an_outcome(old: Phase, new: Phase) -> None:
    allowed = phase_may_move(old, new)
    if old in OUTCOMES:
        assert allowed == (old == Phase.UNKNOWN and new in OUTCOMES and new != Phase.UNKNOWN)
    elif new in OUTCOMES:
        assert allowed
    else:
        assert allowed == (PHASE_ORDER.index(new) > PHASE_ORDER.index(old))


def test_every_phase_is_a_step_or_an_outcome() -> None:
    assert set(PHASE_ORDER) | OUTCOMES == set(Phase)
    assert not set(PHASE_ORDER) & OUTCOMES
    assert set(PHASE_ORDER) > TOUCHED


def test_the_old_container_is_untouched_before_the_switch() -> None:
    before_the_switch = PHASE_ORDER[: PHASE_ORDER.index(Phase.CANARY)]
    assert set(before_the_switch) & TOUCHED == {Phase.STOPPING}


@pytest.mark.parametrize(
    ("outcome", "state"),
    [
        (Phase.DONE, State.SUCCEEDED),
        (Phase.FAILED, State.FAILED),
        (Phase.REVERTED, State.FAILED),
        (Phase.UNKNOWN, State.WAITING),
    ],
)
def test_the_outcome_of_a_deployment_decides_its_job(outcome: Phase, state: State) -> None:
    assert job_state_of(outcome) == state
