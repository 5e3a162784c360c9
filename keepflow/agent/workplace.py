"""The private places of one job on this host: scratch directory, lent logins, home of its project.

All jobs are the same account, so what no running job needs is closed to that account: what a branch nobody trusts left
in the home of a protected one would run there, with what is lent to it.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from keepflow.agent.environment import Places
from keepflow.agent.lanes import give, remove
from keepflow.executors.shell import Account
from keepflow.wire.messages import Login, RunJob


class Workplace:
    """Makes and removes what jobs need on the disk. `root` can be entered by the jobs' account."""

    def __init__(self, root: Path, account: Account | None = None) -> None:
        self.root = root
        self._account = account
        self._lock = threading.Lock()
        self._homes: Counter[Path] = Counter()  #: homes in use, by how many jobs
        for name in ("lanes", "homes", "scratch"):
            (root / name).mkdir(mode=0o711, parents=True, exist_ok=True)

    @contextlib.contextmanager
    def of(self, order: RunJob, workspace: Path, engine: str | None, *, as_they_are: bool = False) -> Iterator[Places]:
        """Give one job its places; the scratch directory with the lent logins is removed afterwards.

        `as_they_are` is for a job that an earlier process of the agent gave them to.
        """
        scratch = self.root / "scratch" / str(order.fence)
        home = self.root / "homes" / order.project / order.trust
        try:
            with self._opened(home):
                if not as_they_are:
                    self._make(order, scratch)
                yield _places(scratch, home, workspace, engine)
        finally:
            remove(scratch)

    def clear(self, going_on: Mapping[Path, RunJob]) -> None:
        """Remove and close what jobs of an agent that was killed left, but not of those that go on in these lanes."""
        fences = {str(order.fence) for order in going_on.values()}
        homes = {(order.project, order.trust) for order in going_on.values()}
        for left in (self.root / "scratch").iterdir():
            if left.name not in fences:
                remove(left)
        for place in set(self.root.glob("lanes/*/*")) - going_on.keys():
            place.chmod(0o700)
        for home in self.root.glob("homes/*/*"):
            if (home.parent.name, home.name) not in homes:
                self._close(home)

    @contextlib.contextmanager
    def _opened(self, home: Path) -> Iterator[None]:
        """Let the account into a home for as long as any job uses it."""
        with self._lock:
            home.parent.mkdir(mode=0o711, exist_ok=True)
            home.mkdir(mode=0o700, exist_ok=True)
            if self._account:
                os.chown(home, self._account.uid, self._account.gid, follow_symlinks=False)
            self._homes[home] += 1
        try:
            yield
        finally:
            with self._lock:
                self._homes[home] -= 1
                if not self._homes[home]:
                    self._close(home)

    def _close(self, home: Path) -> None:
        if self._account:
            os.chown(home, 0, 0, follow_symlinks=False)

    def _make(self, order: RunJob, scratch: Path) -> None:
        remove(scratch)
        for directory in (scratch, scratch / "tmp", scratch / "docker"):
            directory.mkdir(mode=0o700, exist_ok=True)
        for name, data in (("docker/config.json", docker_config(order.logins)), ("output", b""), ("env", b"")):
            _write_private(scratch / name, data)
        if self._account:
            give(scratch, self._account)


def _places(scratch: Path, home: Path, workspace: Path, engine: str | None) -> Places:
    return Places(
        workspace=workspace,
        home=home,
        output=scratch / "output",
        env=scratch / "env",
        docker_config=scratch / "docker",
        temporary=scratch / "tmp",
        engine=engine,
    )


def docker_config(logins: tuple[Login, ...]) -> bytes:
    """Return the `config.json` by which the docker command finds lent logins, and no other."""
    auths = {
        login.address: {"auth": base64.b64encode(f"{login.username}:{login.password}".encode()).decode()}
        for login in logins
        if login.username
    }
    return json.dumps({"auths": auths}).encode()


def _write_private(path: Path, data: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(data)
