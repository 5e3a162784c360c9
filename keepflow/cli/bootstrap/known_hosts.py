"""The host keys that keepflow knows: one file in OpenSSH's form, and no key is ever taken for another one's."""

from __future__ import annotations

import os
from pathlib import Path

from paramiko import HostKeys, PKey, SSHException
from paramiko.hostkeys import HostKeyEntry

from keepflow import errors
from keepflow.tools.files import write_atomic


def default_path() -> Path:
    """Return where the keys are kept for this account."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "keepflow" / "known_hosts"


class KnownHosts:
    """The file; `name` is `host`, or `[host]:port` when the port is not 22."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def key(self, name: str) -> PKey | None:
        """Return the pinned key of a host, or None; raises UsageError when the file cannot be read."""
        try:
            known = HostKeys(str(self.path)).lookup(name) if self.path.exists() else None
        except (OSError, SSHException) as error:
            raise errors.UsageError(f"{self.path}: cannot be read: {error}", code="known-hosts") from None
        return next(iter(known.values()), None) if known else None

    def pin(self, name: str, key: PKey) -> None:
        """Keep a key for a host that has none."""
        line = HostKeyEntry([name], key).to_line() or ""
        before = self.path.read_text() if self.path.exists() else ""
        before += "" if before.endswith("\n") or not before else "\n"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(self.path, (before + line).encode(), 0o600)
