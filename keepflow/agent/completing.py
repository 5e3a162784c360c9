"""A checkout with what its flow asks for besides the files of the commit: submodules, and files of Git LFS.

The master says which submodules a commit has, and has fetched them. Each is checked out in a place of its own, where
only root writes the repository, and copied to where it belongs by the jobs' account. There is no `.git` in the result,
no hook and no filter is run, and agents need no `git-lfs`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import requests

from keepflow import errors
from keepflow.agent import checkout
from keepflow.agent.asking import DID_NOT, Asked, ask, pieces
from keepflow.agent.lanes import Held, Lanes, Source
from keepflow.agent.patience import patiently
from keepflow.core.handing_on import is_inside
from keepflow.core.names import is_sha
from keepflow.core.text import quoted
from keepflow.executors.shell import Account
from keepflow.tools import processes
from keepflow.tools.git import Lane
from keepflow.tools.lfs import Pointer
from keepflow.wire.messages import RunJob

_SECONDS = 600.0
_PIECE = 1024 * 1024


def complete(order: RunJob, source: Source, held: Held, lanes: Lanes) -> None:
    """Lay submodules and large files into a checkout that holds exactly its commit.

    Raises Refused `no-submodule` and `no-lfs`, CommandFailed, Unavailable, Stopped.
    """
    if order.checkout.submodules:
        for path, sha, repository in _listed(order, source):
            _lay_module(held, replace(source, url=f"{source.url}/submodules/{repository}", sha=sha), path, lanes)
    if order.checkout.lfs:
        _Large(order, source, held, lanes.account).lay(lanes.of(held.place))


def _listed(order: RunJob, source: Source) -> Iterator[tuple[str, str, str]]:
    """Yield path, commit and repository of each submodule, as the master says; a path that leads out is refused."""
    query = {"recursive": int(order.checkout.submodules == "recursive")}
    answer = _ask(source, "/submodules", "no-submodule", params=query)
    for one in answer.json()["items"]:
        path, sha, repository = str(one["path"]), str(one["sha"]), str(one["repository"])
        if not is_inside(path) or not is_sha(sha) or not repository.isalnum():
            raise errors.Refused(f"the submodule {quoted(path)} has no place in a checkout", code="no-submodule")
        yield path, sha, repository


def _lay_module(held: Held, source: Source, path: str, lanes: Lanes) -> None:
    place = held.place / "modules" / source.url.rpartition("/")[2]
    place.mkdir(parents=True, exist_ok=True)
    tree = lanes.fill(place, source)
    account = lanes.account
    directory = checkout.enter(held.tree, path.split("/"), account)  # a link on the way is refused
    os.close(directory)
    # By the jobs' account: whatever it swaps for a link meanwhile leads to nothing that is not its own.
    argv = ["cp", "-a", "--reflink=auto", "--", ".", str(held.tree / path)]
    processes.run(argv, cwd=tree, timeout=_SECONDS, account=(account.uid, account.gid) if account else None)


class _Large:
    """The files of Git LFS of one commit; they are kept beside the repository until another commit has them not."""

    def __init__(self, order: RunJob, source: Source, held: Held, account: Account | None) -> None:
        self._order, self._source, self._held, self._account = order, source, held, account
        self._kept = held.place / "lfs"

    def lay(self, lane: Lane) -> None:
        """Replace every pointer of the commit by the bytes that it stands for."""
        self._kept.mkdir(mode=0o700, exist_ok=True)
        found = lane.pointers(self._source.sha)
        for path, (pointer, executable) in found.items():
            try:
                self._lay(path, pointer, executable)
            except errors.RemoteError:  # what is kept was torn by a power cut
                (self._kept / pointer.oid).unlink(missing_ok=True)
                self._lay(path, pointer, executable)
        wanted = {pointer.oid for pointer, _ in found.values()}
        for kept in self._kept.iterdir():
            if kept.name not in wanted:
                kept.unlink()

    def _lay(self, path: str, pointer: Pointer, executable: bool) -> None:
        if not (self._kept / pointer.oid).exists():
            patiently(self._source.patience.begin() if self._source.patience else None, partial(self._get, pointer))
        try:
            checkout.lay(
                self._held.tree,
                path,
                self._pieces(pointer),
                pointer.oid,
                executable=executable,
                coming=f".keepflow-{self._order.fence}-coming",
                account=self._account,
            )
        except OSError as error:
            raise errors.Refused(f"{quoted(path)} has no place here: {error.strerror}", code="no-lfs") from None

    def _get(self, pointer: Pointer) -> None:
        coming = self._kept / "incoming"
        answer = _ask(self._source, f"/lfs/{pointer.oid}", "no-lfs", params={"size": pointer.size}, stream=True)
        with coming.open("wb") as file:
            for piece in pieces(answer):
                file.write(piece)
        coming.replace(self._kept / pointer.oid)

    def _pieces(self, pointer: Pointer) -> Iterator[bytes]:
        with (self._kept / pointer.oid).open("rb") as file:
            while piece := file.read(_PIECE):
                yield piece


def _ask(source: Source, path: str, code: str, **more: Any) -> requests.Response:
    try:
        return ask(Asked("GET", f"{source.url}{path}", source.token, source.ca_file), code=code, **more)
    except errors.RemoteError as error:
        raise errors.Refused(error.message.removeprefix(DID_NOT), code=code) from None
