"""KEEPFLOW_HOME: the one directory (0700) that holds all state of a master, and where each thing lies in it.

keepflow.db  lock           the database; held by the one master that runs on this directory
logs/  mirrors/             logs of runs; bare copies of repositories
master.key  order.key       what seals secrets; what signs orders to agents
admin.token  master.json    how the command line on this machine finds and enters the running master
keepflow.yml                what `keepflow apply` reads, if somebody wrote it
local-agent.yml             what the local agent of `keepflow up` may do; written once, then the person's
keepflow.log                output of `keepflow up --detach`
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path

from keepflow import errors

_ROOT_HOME = Path("/var/lib/keepflow-home")


def default_home() -> Path:
    """Return the home of a master nobody chose one for: `KEEPFLOW_HOME`, else one that fits the account."""
    chosen = os.environ.get("KEEPFLOW_HOME")
    if chosen:
        return Path(chosen)
    if os.geteuid() == 0:
        return _ROOT_HOME
    data = os.environ.get("XDG_DATA_HOME")
    return (Path(data) if data else Path.home() / ".local" / "share") / "keepflow"


@dataclass(frozen=True, slots=True)
class Home:
    """A master's directory; `root` is absolute."""

    root: Path

    @classmethod
    def at(cls, path: Path) -> Home:
        """Return the home at a path, which need not exist yet."""
        return cls(Path(os.path.abspath(path.expanduser())))  # noqa: PTH100 - links in the path stay as people wrote them

    def make(self) -> None:
        """Make the directory and close it to others; raises UsageError and OutOfSpace."""
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.root.chmod(0o700)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise errors.OutOfSpace(f"{self.root}: the disk is full") from None
            raise errors.UsageError(
                f"{self.root}: this directory cannot be used: {error.strerror}; name another with --home", code="home"
            ) from None

    @property
    def database(self) -> Path:
        """The SQLite database, when no other was chosen."""
        return self.root / "keepflow.db"

    @property
    def master_key(self) -> Path:
        """The key that seals secrets at rest; not part of a backup."""
        return self.root / "master.key"

    @property
    def order_key(self) -> Path:
        """The key that signs orders; agents pin its public half."""
        return self.root / "order.key"

    @property
    def address_file(self) -> Path:
        """Where the running master is: {"url", "pid"}."""
        return self.root / "master.json"

    @property
    def admin_token(self) -> Path:
        """The token of the command line on this machine."""
        return self.root / "admin.token"

    @property
    def local_agent_file(self) -> Path:
        """What the local agent may do."""
        return self.root / "local-agent.yml"

    @property
    def log_file(self) -> Path:
        """Where a detached master writes its own log."""
        return self.root / "keepflow.log"

    def local_agent_state(self) -> Path:
        """Where the local agent keeps its own state: beside the home, so that it never needs to look into it.

        A copied home does not take the agent's identity along either: two agents with one key block each other.
        """
        chosen = os.environ.get("KEEPFLOW_AGENT_STATE")
        return Path(chosen).absolute() if chosen else self.root.with_name(f"{self.root.name}-agent")

    def local_agent_front(self) -> Path:
        """Where the local agent keeps its flags and its own nginx: beside the home, open to nginx's workers."""
        chosen = os.environ.get("KEEPFLOW_FRONT")
        return Path(chosen).absolute() if chosen else self.root.with_name(f"{self.root.name}-front")
