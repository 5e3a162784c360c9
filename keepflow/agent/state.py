"""The agent's own directory: who it is, whom it obeys, and that only one process uses it.

lock                          held while an agent runs
key.pem  identity.json        the agent's key; its name, its master, the pinned order keys
reports                       numbered reports that the master has not confirmed yet
attempts/<fence>/             script jobs: what was asked, the log, how far it got
orders/  refused.log          deploy orders seen; what was refused, for people on this host
journal/  networks.json       deployments, and the slot networks allotted (`deployer`, `networks`)
lanes/  homes/                kept checkouts and homes of scripts (elsewhere when jobs run as another account)
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

from keepflow import errors
from keepflow.crypto import keys
from keepflow.crypto.keys import PrivateKey, PublicKey
from keepflow.crypto.rotation import Former, Pinned
from keepflow.tools.files import write_atomic

DEFAULT = Path("/var/lib/keepflow/agent")


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this agent is and whom it obeys. `ca_pem` is the only authority trusted for the master, "" = the system's."""

    agent: str
    url: str
    order_keys: tuple[PublicKey, ...]
    ca_pem: str = ""
    former: tuple[Former, ...] = ()  #: keys that were the master's order key before

    @property
    def pinned(self) -> Pinned:
        """The master's keys, as they may be used."""
        return Pinned(self.order_keys, self.former)


class State:
    """The agent's directory (0700). Only one process may hold it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._lock: int | None = None

    def claim(self) -> None:
        """Make the directory and hold it until this process ends; raises Refused `agent-running` and UsageError."""
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.root.chmod(0o700)
            descriptor = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise errors.UsageError(
                f"{self.root}: the agent's directory cannot be used: {error.strerror}; name another with --state"
            ) from error
        if not _locked(descriptor):
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
            os.close(descriptor)
            raise errors.Refused(
                f"{self.root}: another agent (process {holder or 'unknown'}) uses this directory; each needs its own",
                code="agent-running",
            )
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self._lock = descriptor

    def release(self) -> None:
        """Let another process have the directory."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def holder(self) -> int | None:
        """Return the process that holds the directory now, or None."""
        try:
            with (self.root / "lock").open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            text = (self.root / "lock").read_text().strip()
            return int(text) if text.isdigit() else 0
        except FileNotFoundError:
            return None
        return None

    @property
    def joined(self) -> bool:
        """Whether this agent belongs to a master."""
        return (self.root / "identity.json").exists()

    def key(self) -> PrivateKey:
        """Return the agent's key, made on first use; it never leaves this directory."""
        path = self.root / "key.pem"
        if not path.exists():
            keys.generate().save(path)
        return PrivateKey.load(path)

    def identity(self) -> Identity:
        """Return who the agent is; raises UsageError `not-joined` when it belongs to no master yet."""
        path = self.root / "identity.json"
        try:
            data = json.loads(path.read_bytes())
            return Identity(
                agent=str(data["agent"]),
                url=str(data["url"]),
                order_keys=tuple(PublicKey.parse(text) for text in data["order_keys"]),
                ca_pem=str(data.get("ca_pem", "")),
                former=tuple(
                    Former(PublicKey.parse(each["key"]), int(each["until"])) for each in data.get("former_keys", [])
                ),
            )
        except FileNotFoundError:
            raise errors.UsageError(
                f"{self.root}: this agent belongs to no master yet; run: keepflow agent join URL", code="not-joined"
            ) from None
        except (ValueError, KeyError, TypeError, errors.UsageError) as error:
            raise errors.UsageError(f"{path}: unreadable ({error}); put it back from before, or join anew") from error

    def save_identity(self, identity: Identity) -> None:
        """Keep who the agent is; written whole, fsynced."""
        data = {
            "agent": identity.agent,
            "url": identity.url,
            "order_keys": [key.text for key in identity.order_keys],
            "ca_pem": identity.ca_pem,
            "former_keys": [{"key": former.key.text, "until": former.until} for former in identity.former],
        }
        write_atomic(self.root / "identity.json", json.dumps(data, indent=1).encode(), 0o600)

    @property
    def front_root(self) -> Path:
        """Where nginx reads flags and pages: beside this directory, because it must be open to nginx's workers."""
        return Path(os.environ.get("KEEPFLOW_FRONT") or self.root.parent)

    def jobs_root(self, *, apart: bool) -> Path:
        """Return where jobs have lanes and homes: here, or in a directory that another account may enter."""
        return self.root.with_name(f"{self.root.name}-jobs") if apart else self.root

    def forget_identity(self) -> None:
        """Belong to no master any more; the key stays, and so does what was not reported."""
        (self.root / "identity.json").unlink(missing_ok=True)

    def directory(self, name: str) -> Path:
        """Return a directory of this state (0700), made when missing."""
        path = self.root / name
        path.mkdir(mode=0o700, exist_ok=True)
        return path


def _locked(descriptor: int) -> bool:
    """Take the lock; patient for a moment, because `holder` borrows it to look and an old agent may be just leaving."""
    for _ in range(10):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.03)
        else:
            return True
    return False
