"""Somebody holds a thing still, with a reason that all who wait for it read: the rule of locks and of pauses."""

from __future__ import annotations

from dataclasses import dataclass

from keepflow.core.text import one_line
from keepflow.errors import Denied, Refused, UsageError

WHY_LIMIT = 500  #: characters of a reason


@dataclass(frozen=True, slots=True)
class Hold:
    """A thing by name, the word for what is done to it ("locked", "paused"), and who did it and why; None = nobody.

    The word is the code of refusals, too: `locked` when somebody has it already, `not-locked` when nobody has.
    """

    what: str
    word: str
    by: str | None
    why: str | None

    def sentence(self) -> str | None:
        """Say who holds it and why; None when nobody does."""
        return None if self.by is None else f"{self.what} is {self.word} by {self.by}: {self.why}"

    def take(self, by: str, why: str) -> str:
        """Return the reason as it is kept. The holder may take it again, to say another reason.

        Raises UsageError `needs-why`, and Refused with the word when somebody else holds it.
        """
        if not why.strip():
            raise UsageError("say why: everybody who waits will read it", code="needs-why")
        if self.by not in (None, by):
            raise Refused(self.sentence() or "", code=self.word)
        return one_line(why, WHY_LIMIT)

    def let_go(self, by: str, admin: bool, otherwise: str = "") -> str:
        """Return who held it: its holder or an admin lets it go. Raises Refused `not-…` and Denied `not-holder`.

        `otherwise` says what else somebody can do who may not.
        """
        if self.by is None:
            raise Refused(f"{self.what} is not {self.word}", code=f"not-{self.word}")
        if self.by != by and not admin:
            who = f"{self.by} has {self.word} {self.what}; {self.by}"
            raise Denied(f"{who} or an admin lets go of it{otherwise}", code="not-holder")
        return self.by
