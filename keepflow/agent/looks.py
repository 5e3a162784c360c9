"""What the last look at the services saw, as long as it is news.

The master hears of the end of a deployment at once. A look from before it, told afterwards in a heartbeat, would be
taken for what serves now: the next promote would expect the wrong release, and be refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from keepflow.agent.journal import Journals
from keepflow.wire.messages import ServiceState


@dataclass(frozen=True, slots=True)
class _Look:
    """What was seen of one instance, and what its journals said just before."""

    before: tuple[int, frozenset[tuple[str, bool]]]
    state: ServiceState


class Looks:
    """The states of all instances at the last look."""

    def __init__(self, journals: Journals) -> None:
        self._journals = journals
        self._last: tuple[_Look, ...] = ()

    def take(self, instances: Iterable[tuple[str, str]], look: Callable[[str, str], ServiceState]) -> None:
        """Look at each of these (service, instance); takes the place of the look before."""
        self._last = tuple(_Look(self._journals.mark(*each), look(*each)) for each in instances)

    def fresh(self) -> tuple[ServiceState, ...]:
        """Return what was seen, without what a deployment has begun or ended on since."""
        return tuple(
            look.state
            for look in self._last
            if look.before == self._journals.mark(look.state.service, look.state.instance)
        )
