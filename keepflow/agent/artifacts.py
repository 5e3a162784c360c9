"""Artifacts on this host: files of a checkout kept by the master, and those of earlier jobs laid into a checkout.

The master holds the bytes under their digest; here, every file is opened through its directory and without following a
link, so that nothing outside of the checkout is read or written, whatever a job does meanwhile.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import requests

from keepflow import errors
from keepflow.agent import checkout
from keepflow.agent.asking import Asked, ask, pieces
from keepflow.agent.job_host import Saying
from keepflow.agent.patience import MOST as MOST_PATIENCE
from keepflow.agent.patience import Patience, Waiting, patiently
from keepflow.core.artifacts import MOST, is_path
from keepflow.core.patterns import decide
from keepflow.core.text import one_line, quoted
from keepflow.executors.shell import Account
from keepflow.wire.messages import RunJob

_PIECE = 1024 * 1024


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
        listed = patiently(waiting, lambda: self._ask(order, "GET", "/artifacts/needed").json()["items"])
        for one in listed:
            patiently(self._waiting(log), partial(self._lay, order, tree, one))
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

        patiently(self._waiting(log), send)
        return size

    def _waiting(self, log: Saying) -> Waiting:
        return Patience(self.master, log.say_line, self.most).begin()

    def _lay(self, order: RunJob, tree: Path, one: dict[str, Any]) -> None:
        path = str(one["path"])
        try:
            if not is_path(path):
                raise OSError(None, "it is no path inside of it")
            answer = self._ask(order, "GET", f"/artifacts/needed/{int(one['id'])}", stream=True)
            checkout.lay(
                tree,
                path,
                pieces(answer),
                one["sha256"],
                executable=one["executable"],
                coming=f".keepflow-{order.fence}-{int(one['id'])}",
                account=self.account,
            )
        except OSError as error:
            sentence = f"the artifact {quoted(path)} has no place in the checkout: {error.strerror}"
            raise errors.UsageError(sentence, code="bad-path") from None

    def _ask(self, order: RunJob, method: str, path: str, **more: Any) -> requests.Response:
        asked = Asked(method, f"{self.master}{path}", order.token, self.ca_file)
        return ask(asked, code="no-artifact", **more)


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
                found = checkout.plain_file(directory, name, account)
                if found is None or not is_path(path):
                    say(f"left out: {one_line(path, 200)} is no plain file of this job")
                    continue
                yield path, found
    finally:
        os.close(root)
