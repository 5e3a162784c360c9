"""When a job that ended badly is tried again: by the exit code of its script, or by the cause of its end."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from keepflow.core.states import Reason, State
from keepflow.core.text import words

EXIT, TIMEOUT, SYSTEM, LOST = "exit", "timeout", "system", "lost"
#: Why a job can have ended badly, as far as another try may help.
CAUSES = (EXIT, TIMEOUT, SYSTEM, LOST)
#: Reason code of a job whose next try follows.
RETRY = "retry"


@dataclass(frozen=True, slots=True)
class Retry:
    """How often a script job is tried again, and after what.

    Without `on_exit` and `on` that is every end but `lost`: nobody knows whether a lost job goes on somewhere, so only
    who says `lost` gets a second one beside it.
    """

    max: int  #: tries after the first one
    on_exit: tuple[int, ...] = ()  #: exit codes of the script
    on: tuple[str, ...] = ()  #: causes, of CAUSES
    delay: float = 0.0  #: seconds before the next try

    def after(self, tries: int, state: State, code: str, exit_code: int | None) -> bool:
        """Say whether another try follows the one that ended like this, when there were so many."""
        cause = cause_of(state, code)
        if tries > self.max or cause is None:
            return False
        if not self.on and not self.on_exit:
            return cause != LOST
        return cause in self.on or (cause == EXIT and exit_code in self.on_exit)

    def reason(self, tries: int, sentence: str) -> Reason:
        """Say that the next try follows, when so many have ended, the last one with this sentence."""
        when = f" in {words(self.delay)}" if self.delay else ""
        return Reason(RETRY, f"try {tries + 1} of {self.max + 1} follows{when}, because {sentence}")


#: How a lost job is tried again all of whose steps do no harm when they run twice, without a word of its flow.
WHEN_IDEMPOTENT = Retry(2, on=(LOST,))


def cause_of(state: State, code: str) -> str | None:
    """Return the cause of a bad end, of CAUSES; None when trying again would not help or is not wanted."""
    if state == State.LOST:
        return LOST
    return code if state == State.FAILED and code in CAUSES else None


def to_json(retry: Retry | None) -> dict[str, Any] | None:
    """Return a rule as plain data."""
    return asdict(retry) if retry else None


def from_json(data: dict[str, Any] | None) -> Retry | None:
    """Read a rule back."""
    return Retry(data["max"], tuple(data["on_exit"]), tuple(data["on"]), data["delay"]) if data else None
