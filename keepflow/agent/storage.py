"""Room on a build host: checkouts that no run needs, and images that were pulled or built for jobs, go by rule.

Nothing else is ever touched: what is removed is in the agent's own records, by name, never "what is unused".
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from keepflow import errors
from keepflow.agent import lanes as checkouts
from keepflow.agent.accounts import jobs_account
from keepflow.agent.kept_images import KIND as IMAGE
from keepflow.agent.kept_images import KeptImages
from keepflow.agent.lanes import Lanes
from keepflow.agent.logs import Log
from keepflow.agent.state import State
from keepflow.config.agent_file import AgentFile
from keepflow.core.pruning import Item, Rule, over
from keepflow.tools.engine import Engine

log = Log(__name__)

_EVERY = 3600.0  #: seconds between two looks


@dataclass(frozen=True, slots=True)
class Storage:
    """What of jobs lies on this host. `engine` is None where jobs have none."""

    rule: Callable[[], Rule]
    lanes: Lanes
    images: KeptImages
    engine: Engine | None
    clock: Callable[[], float] = time.time

    def items(self) -> list[Item]:
        """List all of it, with the reasons of what has to stay. Raises Unavailable and CommandFailed of the engine."""
        images = self.images.items(self.engine) if self.engine else []
        return [*self.lanes.items(), *images]

    def over(self) -> list[Item]:
        """Return what the rule gives up now, the longest unused first."""
        return over(self.rule(), self.items(), self.clock())

    def prune(self) -> list[Item]:
        """Remove what the rule gives up and return what went; a job that came meanwhile keeps what it has taken."""
        self.lanes.finish_removing()
        return [item for item in self.over() if self._removed(item)]

    def free(self) -> int:
        """Return the bytes that are free where checkouts lie."""
        return shutil.disk_usage(self.lanes.root).free

    def shown(self, item: Item) -> str:
        """Return the name of a thing as people know it."""
        return self.images.named(item.name) if item.kind == IMAGE else item.name

    def look_after(self, stop: threading.Event) -> None:
        """Prune now and then until told to stop."""
        while True:
            try:
                for item in self.prune():
                    log.info(f"an unused {item.kind} is removed", name=self.shown(item), bytes=item.size)
            except errors.KeepflowError as error:
                log.warning("unused images of jobs cannot be looked through", reason=error.message)
            if stop.wait(_EVERY):
                return

    def _removed(self, item: Item) -> bool:
        if item.kind == checkouts.KIND:
            return self.lanes.remove(item.name)
        return self.engine is not None and self.images.remove(self.engine, item.name)


def storage_of(state: State, file: Callable[[], AgentFile]) -> Storage:
    """Return what an agent's state and file say; the rule may change while it is used."""
    now = file()
    account = jobs_account(now)
    lanes = Lanes(state.jobs_root(apart=account.account is not None) / "lanes", account.account)
    engine = Engine(now.docker.host) if account.engine_socket.exists() else None

    def rule() -> Rule:
        said = file().storage
        return Rule(said.unused, said.budget or 0)

    return Storage(rule, lanes, kept_images_of(state), engine)


def kept_images_of(state: State) -> KeptImages:
    """Return the record of images of an agent."""
    return KeptImages(state.root / "images")
