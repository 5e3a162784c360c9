"""Whether what is proven about a release is enough to promote it: no receipt, no promote."""

from __future__ import annotations

from dataclasses import dataclass

from keepflow.core.promoting import Guard
from keepflow.core.receipts import Build, Result
from keepflow.core.text import one_line

CODE = "receipt"


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the receipts of a digest say together; `fault` says which of them does not fit, and then nothing counts."""

    build: Build | None = None
    counts: Result | None = None  #: the result that counts
    fault: str | None = None


def guard(found: Evidence, *, person_wanted: bool) -> Guard:
    """Say whether a release may be promoted on this evidence; `person_wanted` when a run's word is not enough.

    Breaking the glass overrides what people said or did not say, never a receipt that is missing or does not fit.
    """
    if found.fault is not None:
        return Guard(CODE, False, found.fault)
    if found.build is None:
        return Guard(CODE, False, "no receipt says which run built this digest; build it again")
    if found.counts is None:
        return Guard(CODE, False, "no receipt says that this digest passed a test")
    if not found.counts.passed:
        who, why = found.counts.person or "a run", f": {one_line(found.counts.note)}" if found.counts.note else ""
        sentence = f"{who} rejected this digest in {found.counts.environment}{why}"
        return Guard(CODE, False, sentence, overridable=True)
    if person_wanted and not found.counts.person:
        sentence = f"a run saw this digest serve in {found.counts.environment}, but no person tested it"
        return Guard(CODE, False, sentence, overridable=True)
    tested = f"tested by {found.counts.person}" if found.counts.person else "seen serving"
    return Guard(CODE, True, f"signed receipts say how this digest was built, and that it was {tested}")
