"""The master as its parts see it, built once by the wiring of the process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from keepflow.crypto.keys import PrivateKey
from keepflow.crypto.vault import Vault
from keepflow.engine.wakes import Wakes
from keepflow.store.database import Database
from keepflow.store.writer import Writer

if TYPE_CHECKING:
    from keepflow.engine.keyring import KeyRing
    from keepflow.engine.logs import Logs
    from keepflow.engine.mirrors import Mirrors


@dataclass(frozen=True, slots=True)
class Master:
    """Everything engine, gateway and web share. `kinds` are the step kinds, `url()` the address people use."""

    home: Path
    database: Database
    writer: Writer
    vault: Vault
    keys: KeyRing
    wakes: Wakes
    mirrors: Mirrors
    logs: Logs
    kinds: Mapping[str, ModuleType]
    forges: Mapping[str, ModuleType]
    notifiers: Mapping[str, ModuleType]
    url: Callable[[], str]

    @property
    def order_key(self) -> PrivateKey:
        """The key that orders and receipts are signed with now."""
        return self.keys.current
