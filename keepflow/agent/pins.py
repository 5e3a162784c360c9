"""Who this agent is and which keys of its master it has pinned; a new key comes with the word of the one before."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from keepflow.agent.logs import Log
from keepflow.agent.state import Identity

log = Log(__name__)


class Pins:
    """The identity, for all threads. `save` puts it on the disk and returns when it is safe there."""

    def __init__(self, identity: Identity, save: Callable[[Identity], None]) -> None:
        self._identity, self._save = identity, save
        self._lock = threading.Lock()

    @property
    def identity(self) -> Identity:
        """Who this agent is, and whom it obeys, now."""
        with self._lock:
            return self._identity

    def follow(self, rotations: Iterable[Mapping[str, Any]]) -> None:
        """Pin the keys these lead to; raises BadSignature for what is no rotation, and pins nothing then."""
        with self._lock:
            pinned = self._identity.pinned.follow(rotations)
            if pinned == self._identity.pinned:
                return
            moved = replace(self._identity, order_keys=pinned.current, former=pinned.former)
            self._save(moved)
            self._identity = moved
        log.info("the master's order key has changed", keys=[key.key_id for key in pinned.current])
