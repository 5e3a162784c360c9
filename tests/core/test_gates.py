"""A gate closes once, never into a yes by itself, and gives way to newer releases only."""

from __future__ import annotations

import pytest

from keepflow.core.gates import MOVES, Gate, GateState, gives_way, lapsed, may_close

OPEN = Gate(12, GateState.OPEN, 1000)


def test_an_open_gate_may_close_into_every_other_state() -> None:
    assert {state for state in GateState if may_close(OPEN, state)} == set(GateState) - {GateState.OPEN}


@pytest.mark.parametrize("state", [state for state in GateState if state is not GateState.OPEN])
def test_a_closed_gate_stays_as_it_is(state: GateState) -> None:
    assert MOVES[state] == frozenset()


def test_only_a_newer_run_supersedes() -> None:
    assert [gives_way(OPEN, run) for run in (11, 12, 13)] == [False, False, True]


def test_time_closes_only_what_is_open() -> None:
    assert [lapsed(OPEN, now) for now in (999, 1000)] == [False, True]
    assert not lapsed(Gate(12, GateState.PROMOTED, 1000), 2000)
