"""What is said of a deployment whose agent says nothing: how long, and where it was last. It is never given up."""

from __future__ import annotations

from keepflow.core.states import OUTCOMES, Phase

_SECOND = 1_000_000
#: An agent is heard of at least this often while it is linked, with a margin for a busy machine; microseconds.
HEARD_WITHIN = 60 * _SECOND


def silence(agent: str, phase: Phase, *, connected: bool, quiet: int) -> str | None:
    """Say that nothing was heard of a deployment for `quiet` microseconds; None when that is no news.

    Before an agent has the order there is nothing to hear of it, and after an outcome nothing more to come.
    """
    if phase in OUTCOMES or phase == Phase.QUEUED or (connected and quiet < HEARD_WITHIN):
        return None
    goes_on = (
        "it may have taken the order" if phase == Phase.OFFERED else "it finishes or puts everything back by itself"
    )
    return f"agent {agent} is silent for {max(0, quiet) // _SECOND} s, last phase {phase.value}; {goes_on}"
