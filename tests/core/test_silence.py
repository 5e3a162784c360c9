"""What is said while nothing is heard of a deployment."""

from __future__ import annotations

import pytest

from keepflow.core.silence import HEARD_WITHIN, silence
from keepflow.core.states import OUTCOMES, Phase


def test_it_says_how_long_and_where_the_deployment_was_last() -> None:
    said = silence("prod-1", Phase.PULLING, connected=False, quiet=74_900_000)
    assert said == "agent prod-1 is silent for 74 s, last phase pulling; it finishes or puts everything back by itself"


def test_an_order_on_its_way_may_have_been_taken() -> None:
    assert "may have taken the order" in str(silence("prod-1", Phase.OFFERED, connected=False, quiet=0))


def test_a_linked_agent_is_silent_only_after_a_while() -> None:
    assert silence("prod-1", Phase.PULLING, connected=True, quiet=HEARD_WITHIN - 1) is None
    assert silence("prod-1", Phase.PULLING, connected=True, quiet=HEARD_WITHIN) is not None


@pytest.mark.parametrize("phase", sorted({*OUTCOMES, Phase.QUEUED}))
def test_nothing_is_awaited_before_the_order_and_after_the_end(phase: Phase) -> None:
    assert silence("prod-1", phase, connected=False, quiet=10**12) is None
