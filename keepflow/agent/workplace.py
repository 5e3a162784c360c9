"""The private places of one job on this host: scratch directory, lent logins, home of its project."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from keepflow.agent.environment import Places
from keepflow.agent.lanes import give
from keepflow.executors.shell import Account
from keepflow.wire.messages import Login, RunJob


class Workplace:
    """Makes and removes what jobs need on the disk. `root` can be entered by the jobs' account."""

    def __init__(self, root: Path, account: Account | None = None) -> None:
        self.root = root
        self._account = account
        for name in ("lanes", "homes", "scratch"):
            (root / name).mkdir(mode=0o711, parents=True, exist_ok=True)

    @contextlib.contextmanager
    def of(self, order: RunJob, workspace: Path, engine: str | None) -> Iterator[Places]:
        """Give one job its places; the scratch directory with the lent logins is removed afterwards."""
        scratch = self.root / "scratch" / str(order.fence)
        try:
            yield self._make(order, scratch, workspace, engine)
        finally:
            remove(scratch)

    def clear(self) -> None:
        """Remove what jobs of an agent that was killed left in the scratch directory."""
        for left in (self.root / "scratch").iterdir():
            remove(left)

    def _make(self, order: RunJob, scratch: Path, workspace: Path, engine: str | None) -> Places:
        home = self.root / "homes" / order.project / order.trust
        home.parent.mkdir(mode=0o711, exist_ok=True)
        remove(scratch)
        for directory in (home, scratch, scratch / "tmp", scratch / "docker"):
            directory.mkdir(mode=0o700, exist_ok=True)
        for name, data in (("docker/config.json", docker_config(order.logins)), ("output", b""), ("env", b"")):
            _write_private(scratch / name, data)
        if self._account:
            os.chown(home, self._account.uid, self._account.gid)
            give(scratch, self._account)
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


def remove(path: Path) -> None:
    """Remove a tree a job has filled; links are not followed, and what another account owns may stay."""
    with contextlib.suppress(OSError):
        shutil.rmtree(path)
        return
    if os.geteuid() == 0:  # needs no permission, and must not change the mode of whatever a job put in the way
        shutil.rmtree(path, ignore_errors=True)
        return
    for parent, names, _ in os.walk(path):  # build tools leave directories that nothing can be removed from
        for child in (Path(parent, name) for name in names):
            with contextlib.suppress(PermissionError):
                if not child.is_symlink():
                    child.chmod(0o700)
    shutil.rmtree(path, ignore_errors=True)


def _write_private(path: Path, data: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(data)
