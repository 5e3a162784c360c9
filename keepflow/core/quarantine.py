"""Which releases are put under quarantine: those that did badly by themselves, not those that met bad luck."""

from __future__ import annotations

from keepflow.core.states import Phase

#: Reasons of a deployment's end that say something about the release, whatever host it was on.
BLAMED_AT_THE_GATE = frozenset({"exited", "restarting", "out-of-memory", "unhealthy"})
BLAMED_AFTER_THE_SWITCH = frozenset({"visitors-failing", "front-door-failing", "front-door", "died-after-switch"})


def is_blamed(outcome: Phase, code: str, *, promoted_to: bool) -> bool:
    """Say whether an end puts the release under quarantine in its environment.

    One that served and was put back always; one that failed its gate where releases come tested (`promoted_to`).
    """
    blamed = BLAMED_AT_THE_GATE | BLAMED_AFTER_THE_SWITCH
    return code in blamed and (outcome == Phase.REVERTED or (outcome == Phase.FAILED and promoted_to))
