"""Files of a job on their way to other machines: packed as a commit, sent to the run's own repository, fetched there.

The walk opens every file through its directory and follows no link, as for artifacts. What is large goes by its digest,
beside git. Nothing here is run as the job's account, and no program of git reads what a job left before the master
has checked it.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import requests

from keepflow import errors
from keepflow.agent import checkout
from keepflow.agent.asking import Asked, Body, ask, pieces
from keepflow.agent.job_host import Saying
from keepflow.agent.lanes import Held, Lanes, Source
from keepflow.agent.patience import Waiting, patiently
from keepflow.core.handing_on import LARGE, MOST_FILES, MOST_PACK, Handed, Large, from_text, is_inside, to_text
from keepflow.core.matching import OWN_EMAIL, OWN_NAME
from keepflow.core.sharing import Left
from keepflow.core.text import one_line, quoted
from keepflow.executors.shell import Account
from keepflow.tools.brake import stoppable
from keepflow.tools.failpoints import fail
from keepflow.tools.git import packing
from keepflow.wire.messages import Away, RunJob

_PIECE = 1024 * 1024
NOT_HANDED_ON = "not-handed-on"  #: reason code of a job whose files could not be handed on, or fetched
_NONE = "0" * 40


@dataclass(slots=True)
class _Found:
    """What is in a workspace, as it was walked through."""

    entries: dict[bytes, packing.Entry] = field(default_factory=dict)
    large: dict[str, Large] = field(default_factory=dict)
    directories: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def empty(self) -> tuple[str, ...]:
        """Return the directories without any file below."""
        paths = [*map(os.fsdecode, self.entries), *self.large]
        full = {path[:at] for path in paths for at, character in enumerate(path) if character == "/"}
        return tuple(sorted(path for path in self.directories if path not in full))


class Carrier:
    """Hands the files of jobs on, and fetches what other machines handed on."""

    def __init__(self, lanes: Lanes, account: Account | None) -> None:
        self._lanes, self._account = lanes, account

    def hand_on(self, order: RunJob, source: Source, held: Held, left: Left, log: Saying) -> None:
        """Bring the files of a job that has ended to the master, whole or not at all.

        Raises Refused and TooLarge for what cannot travel, RemoteError when the master takes it not, Unavailable when
        it stays away, Stopped.
        """
        lane = self._lanes.of(held.place)
        parent = lane.current()
        if parent is None:
            raise errors.Refused("the checkout has no commit to go on from", code=NOT_HANDED_ON)
        url = repository_of(order, source)
        with tempfile.TemporaryFile(dir=held.place) as file:
            place_holder = _command(order.fence, _NONE)
            file.write(place_holder)
            known, pack = lane.objects_of(parent), packing.Pack(file)
            found = _Walk(held.tree, self._account, pack, known, _Files(url, source)).walk()
            handed = Handed(left, found.large, found.empty())
            commit = _finish(pack, found, known, parent, handed)
            size = file.tell()
            file.seek(0)
            file.write(_command(order.fence, commit))
            fail("handing.packed")
            patiently(_waiting(source), lambda: _send(url, source, file, size, order.fence, commit))
        fail("handing.sent")
        for path in found.left_out[:20]:
            log.tell(f"left out: {one_line(path, 200)} is no plain file or link of this job")
        count = len(found.entries) + len(found.large)
        log.tell(f"── handed {count:,} files on to other machines ({size:,} bytes of changes)")

    def fetch(self, order: RunJob, source: Source, away: Away) -> tuple[Held, Left]:
        """Return a lane with the files that a job on another machine handed on, and who changed them.

        Raises RemoteError, CommandFailed, Unavailable, Stopped.
        """
        url = repository_of(order, source)
        held = self._lanes.take(order.project, order.trust)
        try:
            fetching = replace(source, url=url, sha=away.commit, plain=True)
            self._lanes.fill(held.place, fetching)
            try:
                handed = from_text(self._lanes.of(held.place).message_of(away.commit))
            except ValueError as error:
                raise errors.RemoteError(f"what was handed on makes no sense: {error}", code=NOT_HANDED_ON) from None
            files = _Files(url, source)
            for path, one in handed.large.items():
                patiently(_waiting(source), partial(self._lay, order, held.tree, path, one, files))
            for path in handed.empty:
                self._make(held.tree, path)
        except BaseException:
            held.give_back()
            raise
        fail("handing.fetched")
        return held, handed.left

    def _lay(self, order: RunJob, tree: Path, path: str, one: Large, files: _Files) -> None:
        try:
            checkout.lay(
                tree,
                path,
                files.pieces(one.sha256),
                one.sha256,
                executable=one.executable,
                coming=f".keepflow-{order.fence}-coming",
                account=self._account,
            )
        except OSError as error:
            raise errors.RemoteError(
                f"{quoted(path)} has no place here: {error.strerror}", code=NOT_HANDED_ON
            ) from None

    def _make(self, tree: Path, path: str) -> None:
        try:
            os.close(checkout.enter(tree, path.split("/"), self._account))
        except OSError as error:
            raise errors.RemoteError(
                f"{quoted(path)} has no place here: {error.strerror}", code=NOT_HANDED_ON
            ) from None


def repository_of(order: RunJob, source: Source) -> str:
    """Return the address of the repository that a run has of its own."""
    return f"{source.url}/runs/{order.run}"


def _finish(pack: packing.Pack, found: _Found, known: set[str], parent: str, handed: Handed) -> str:
    """Put directories and the commit into the pack and return the commit."""
    tree, trees = packing.trees(found.entries)
    for sha, data in trees.items():
        if sha not in known:
            pack.add(b"tree", data)
    made = packing.commit(tree, parent, to_text(handed), (OWN_NAME, OWN_EMAIL))
    pack.add(b"commit", made)
    pack.close()
    return packing.object_id(b"commit", made)


class _Walk:
    """One way through a workspace: what is new in it goes into the pack, what is large to the master."""

    def __init__(self, tree: Path, account: Account | None, pack: packing.Pack, known: set[str], files: _Files) -> None:
        self._tree, self._account, self._pack, self._files = tree, account, pack, files
        self._seen = set(known)
        self._found = _Found()

    def walk(self) -> _Found:
        """Look at everything; raises TooLarge."""
        root = os.open(self._tree, checkout.DIRECTORY)
        try:
            for base, directories, files, here in os.fwalk(".", dir_fd=root, follow_symlinks=False):
                folder = "" if base == "." else base.removeprefix("./") + "/"
                for name in (*directories, *files):
                    self._look(here, name, folder + name)
                directories[:] = [name for name in directories if is_inside(folder + name)]
        finally:
            os.close(root)
        return self._found

    def _look(self, here: int, name: str, path: str) -> None:
        found = self._found
        kind = stat.S_IFMT(os.stat(name, dir_fd=here, follow_symlinks=False).st_mode)
        if not is_inside(path):
            found.left_out.append(path)
        elif kind == stat.S_IFDIR:
            found.directories.append(path)
        elif kind == stat.S_IFLNK:
            self._add(path, packing.LINK, os.fsencode(os.readlink(name, dir_fd=here)))
        elif kind == stat.S_IFREG and (opened := checkout.plain_file(here, name, self._account)) is not None:
            with os.fdopen(opened, "rb") as file:
                self._look_into(path, file)
        else:
            found.left_out.append(path)
        if len(found.entries) + len(found.large) + len(found.directories) > MOST_FILES:
            raise errors.TooLarge(f"more than {MOST_FILES:,} files cannot go on to another machine; pack them into one")

    def _look_into(self, path: str, file: BinaryIO) -> None:
        seen = os.fstat(file.fileno())
        executable = bool(seen.st_mode & stat.S_IXUSR)
        if seen.st_size < LARGE:
            self._add(path, packing.EXECUTABLE if executable else packing.FILE, file.read(LARGE))
        else:
            self._found.large[path] = self._files.keep(file, executable)

    def _add(self, path: str, mode: bytes, data: bytes) -> None:
        sha = packing.object_id(b"blob", data)
        self._found.entries[os.fsencode(path)] = packing.Entry(mode, sha)
        if sha not in self._seen:
            self._seen.add(sha)
            self._pack.add(b"blob", data)
            if self._pack.size > MOST_PACK:
                sentence = (
                    f"the changed files are more than {MOST_PACK // 1024**3} GiB, packed; remove what nobody needs"
                )
                raise errors.TooLarge(f"{sentence}, or keep it as artifacts")


@dataclass(frozen=True, slots=True)
class _Files:
    """The large files of a run, at the master."""

    url: str
    source: Source

    def keep(self, file: BinaryIO, executable: bool) -> Large:
        """Bring a file there, unless it is there."""
        digest, size = hashlib.sha256(), 0
        while piece := file.read(_PIECE):
            digest.update(piece)
            size += len(piece)
        large = Large(digest.hexdigest(), size, executable)
        patiently(_waiting(self.source), lambda: self._keep(file, large))
        return large

    def _keep(self, file: BinaryIO, large: Large) -> None:
        try:
            _ask("HEAD", self._at(large.sha256), self.source)
        except errors.RemoteError:
            body = Body(file, large.size)
            with stoppable(body.stop):
                _ask("PUT", self._at(large.sha256), self.source, data=body)

    def pieces(self, sha256: str) -> Iterator[bytes]:
        """Return the bytes of a file, piece by piece."""
        return pieces(_ask("GET", self._at(sha256), self.source, stream=True))

    def _at(self, sha256: str) -> str:
        return f"{self.url}/files/{sha256}"


def _command(fence: int, commit: str) -> bytes:
    """Return what stands before the pack of a push: the one ref it makes; its length does not depend on the commit."""
    line = f"{_NONE} {commit} refs/attempts/{fence}/{commit}\0 report-status"
    return b"%04x%b0000" % (len(line) + 4, line.encode())


def _send(url: str, source: Source, file: BinaryIO, size: int, fence: int, commit: str) -> None:
    body = Body(file, size)
    kind = {"Content-Type": "application/x-git-receive-pack-request"}
    with stoppable(body.stop):
        said = _ask("POST", f"{url}/git-receive-pack", source, headers=kind, data=body).content
    if b"unpack ok\n" not in said or f"ok refs/attempts/{fence}/{commit}\n".encode() not in said:
        raise errors.RemoteError(
            f"the master refused the files: {one_line(said.decode(errors='replace'), 200)}", code=NOT_HANDED_ON
        )


def _waiting(source: Source) -> Waiting | None:
    return source.patience.begin() if source.patience else None


def _ask(method: str, url: str, source: Source, **more: Any) -> requests.Response:
    return ask(Asked(method, url, source.token, source.ca_file), code=NOT_HANDED_ON, **more)
