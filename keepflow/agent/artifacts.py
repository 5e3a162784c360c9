"""Artifacts on this host: files of a checkout kept by the master, and those of earlier jobs laid into a checkout.

The master holds the bytes under their digest; here, every file is opened through its directory and without following a
link, so that nothing outside of the checkout is read or written, whatever a job does meanwhile.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import requests

from keepflow import errors
from keepflow.agent import checkout
from keepflow.agent.job_host import Saying
from keepflow.agent.patience import MOST as MOST_PATIENCE
from keepflow.agent.patience import Patience, Waiting
from keepflow.core.artifacts import MOST, is_path
from keepflow.core.patterns import decide
from keepflow.core.text import one_line, quoted
from keepflow.executors.shell import Account
from keepflow.wire.messages import RunJob

_TIMEOUT = (10.0, 300.0)  #: seconds to connect, and without a byte
_PIECE = 1024 * 1024
_AWAY = (502, 503, 504)  #: what a master that stops says, and a proxy before one that is not there
T = TypeVar("T")
_FIND = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Artifacts:
    """Keeps and fetches files at one master, each time with the token of the job."""

    master: str
    ca_file: Path | None
    account: Account | None
    most: float = MOST_PATIENCE  #: seconds that a master is waited for which cannot be reached

    def keep(self, order: RunJob, tree: Path, patterns: Sequence[str], seconds: float, log: Saying) -> None:
        """Keep every file that fits one of the patterns; raises UsageError `no-artifact` when one fits none."""
        fitting = dict.fromkeys(patterns, 0)
        for count, (path, found) in enumerate(_files(tree, patterns, self.account, log.tell), 1):
            with os.fdopen(found, "rb") as file:
                if count > MOST:
                    raise errors.UsageError(f"more than {MOST} files fit; pack them into one", code="too-many")
                size = self._send(order, path, file, seconds, log)
            log.tell(f"kept {path} ({size:,} bytes)")
            for pattern in patterns:
                fitting[pattern] += decide([pattern, f"{pattern.rstrip('/')}/**"], path).selected
        if missing := [pattern for pattern, count in fitting.items() if not count]:
            raise errors.UsageError(f"no file fits {', '.join(map(quoted, missing))}", code="no-artifact")

    def fetch(self, order: RunJob, tree: Path, log: Saying) -> None:
        """Lay what earlier jobs of the run have kept into a checkout; what is in its place is replaced."""
        if not order.artifacts:
            return
        waiting = self._waiting(log)
        listed = self._patiently(waiting, lambda: self._ask(order, "GET", "/artifacts/needed").json()["items"])
        for one in listed:
            self._patiently(self._waiting(log), partial(self._lay, order, tree, one))
        log.tell(f"── {len(listed)} artifact{'s' * (len(listed) != 1)} of earlier jobs")

    def _send(self, order: RunJob, path: str, file: Any, seconds: float, log: Saying) -> int:
        digest, size = hashlib.sha256(), 0
        while data := file.read(_PIECE):
            digest.update(data)
            size += len(data)
        mode = os.fstat(file.fileno()).st_mode
        query: dict[str, Any] = {"path": path, "sha256": digest.hexdigest(), "keep": seconds}
        query["executable"] = int(bool(mode & stat.S_IXUSR))

        def send() -> None:
            file.seek(0)
            self._ask(order, "PUT", "/artifacts/kept", params=query, data=file if size else b"")

        self._patiently(self._waiting(log), send)
        return size

    def _waiting(self, log: Saying) -> Waiting:
        return Patience(self.master, log.say_line, self.most).begin()

    def _patiently(self, waiting: Waiting, act: Callable[[], T]) -> T:
        """Do what does no harm when it is done twice until the master answers, or has been waited for long enough."""
        while True:
            try:
                return act()
            except errors.Unavailable as error:
                if not waiting.again():
                    raise errors.Unavailable(f"{error.message}{waiting.over}", code=error.code) from None

    def _lay(self, order: RunJob, tree: Path, one: dict[str, Any]) -> None:
        path = str(one["path"])
        try:
            if not is_path(path):
                raise OSError(None, "it is no path inside of it")
            parents, name = checkout.split(path)
            directory = checkout.enter(tree, parents, self.account)
            try:
                self._write(order, directory, name, one)
            finally:
                os.close(directory)
        except OSError as error:
            sentence = f"the artifact {quoted(path)} has no place in the checkout: {error.strerror}"
            raise errors.UsageError(sentence, code="bad-path") from None

    def _write(self, order: RunJob, directory: int, name: str, one: dict[str, Any]) -> None:
        coming, digest = f".keepflow-{order.fence}-{int(one['id'])}", hashlib.sha256()
        mode = 0o755 if one["executable"] else 0o644
        try:
            with os.fdopen(checkout.new_file(directory, coming, mode, self.account), "wb") as file:
                answer = self._ask(order, "GET", f"/artifacts/needed/{int(one['id'])}", stream=True)
                for data in answer.iter_content(_PIECE):
                    digest.update(data)
                    file.write(data)
            if digest.hexdigest() != one["sha256"]:
                raise errors.RemoteError(
                    f"other bytes came for {quoted(one['path'])} than were kept", code="bad-digest"
                )
            os.rename(coming, name, src_dir_fd=directory, dst_dir_fd=directory)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(coming, dir_fd=directory)

    def _ask(self, order: RunJob, method: str, path: str, **more: Any) -> requests.Response:
        with requests.Session() as session:
            session.trust_env = False  # what is sent goes to the master and nowhere else
            try:
                answer = session.request(
                    method,
                    f"{self.master}{path}",
                    headers={"Authorization": f"Bearer {order.token}"},
                    timeout=_TIMEOUT,
                    verify=str(self.ca_file) if self.ca_file else True,
                    allow_redirects=False,
                    **more,
                )
            except requests.RequestException as error:
                raise errors.Unavailable(f"the master cannot be reached: {one_line(str(error), 200)}") from None
        if answer.ok:
            return answer
        if answer.status_code in _AWAY:
            raise errors.Unavailable(f"the master is away: it answered {answer.status_code}")
        try:
            said = one_line(str(answer.json()["detail"]), 200)
        except (ValueError, KeyError):
            said = f"it answered {answer.status_code}"
        raise errors.RemoteError(f"the master did not take part: {said}", code="no-artifact")


def _files(
    tree: Path, patterns: Sequence[str], account: Account | None, say: Callable[[str], None]
) -> Iterator[tuple[str, int]]:
    """Yield (path, open file) of every regular file that fits; links and what is no file are named and left out."""
    wanted = [each for pattern in patterns for each in (pattern, f"{pattern.rstrip('/')}/**")]
    root = os.open(tree, checkout.DIRECTORY)
    try:
        for base, names, files, directory in os.fwalk(".", dir_fd=root, follow_symlinks=False):
            names.sort()
            for name in sorted(files):
                path = os.path.normpath(os.path.join(base, name))  # noqa: PTH118 - a text, relative to an open directory
                if not decide(wanted, path).selected:
                    continue
                found = _opened(directory, name, account)
                if found is None or not is_path(path):
                    say(f"left out: {one_line(path, 200)} is no plain file of this job")
                    continue
                yield path, found
    finally:
        os.close(root)


def _opened(directory: int, name: str, account: Account | None) -> int | None:
    """Open a regular file that is nobody else's under another name; None for anything else."""
    try:
        descriptor = os.open(name, _FIND, dir_fd=directory)
    except OSError:
        return None
    seen = os.fstat(descriptor)
    strange = account is not None and seen.st_nlink > 1 and seen.st_uid != account.uid
    if stat.S_ISREG(seen.st_mode) and not strange:
        return descriptor
    os.close(descriptor)
    return None
