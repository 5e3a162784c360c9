"""What a look at a host found: fine or not, in a sentence, and how to mend it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum


class State(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARNING = "warning"  #: it works, and somebody should know
    FAILED = "failed"  #: a deployment, or the agent itself, would fail


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the table: the subject, its state, a sentence, and what to do about it ("" when nothing)."""

    subject: str
    state: State
    sentence: str
    mend: str = ""

    def to_json(self) -> dict[str, str]:
        """Return the finding as plain data."""
        return asdict(self)


def ok(subject: str, sentence: str) -> Finding:
    """Return a finding that needs nobody."""
    return Finding(subject, State.OK, sentence)


def warning(subject: str, sentence: str, mend: str) -> Finding:
    """Return a finding that somebody should know."""
    return Finding(subject, State.WARNING, sentence, mend)


def failed(subject: str, sentence: str, mend: str) -> Finding:
    """Return a finding that must be mended."""
    return Finding(subject, State.FAILED, sentence, mend)
