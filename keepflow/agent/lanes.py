"""Kept checkouts, one per project, trust and number: `lanes/<project>/<trust>-<n>/{git,work}`, held by one job each.

What a fork's job leaves behind is never seen by a protected branch's job: they have other lanes, and other homes.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO

from keepflow import errors
from keepflow.agent import untouched
from keepflow.agent.patience import Patience, Waiting
from keepflow.core.pruning import Item
from keepflow.executors.shell import Account
from keepflow.tools.git import Lane

KIND = "checkout"
_TREE = "work"
_LOCK = "lock"
_GONE = ".gone-"


@dataclass(frozen=True, slots=True)
class Source:
    """Where a job's code comes from: the project on the master, and the job's own credential."""

    url: str
    sha: str
    token: str = field(repr=False)
    ca_file: Path | None = None
    patience: Patience | None = None  #: with a master that cannot be reached
    plain: bool = False  #: every file as it was handed on, whatever attributes in the tree say


@dataclass(frozen=True, slots=True)
class Held:
    """A lane that is held; the lock goes with the process."""

    place: Path
    lock: IO[bytes]

    @property
    def tree(self) -> Path:
        """Its working tree."""
        return self.place / _TREE

    def open(self) -> None:
        """Let the jobs' account in."""
        self.place.chmod(0o711)

    def close(self) -> None:
        """Let the jobs' account out: nobody's job looks into a lane that is another's, or nobody's."""
        self.place.chmod(0o700)

    def give_back(self) -> None:
        """Close it and let somebody else have it."""
        self.close()
        self.lock.close()


@dataclass(frozen=True, slots=True)
class _Known:
    """What a lane was brought to last. `sum` is of its tree, taken when a second job asked for the same commit."""

    source: Source
    sum: bytes | None = None
    changes: bool = False  #: whether a job has changed the tree


class Lanes:
    """The lanes of one agent; `account` owns the files that jobs work on (None: the agent itself)."""

    def __init__(self, root: Path, account: Account | None = None) -> None:
        self.root = root
        self._account = account
        self._known: dict[Path, _Known] = {}

    @property
    def account(self) -> Account | None:
        """Whose the files are that jobs work on; None: the agent's own."""
        return self._account

    @contextlib.contextmanager
    def hold(self, project: str, trust: str) -> Iterator[Path]:
        """Hold the first free lane of a project and give its directory; another process may not have it meanwhile."""
        held = self.take(project, trust)
        try:
            yield held.place
        finally:
            held.give_back()

    def take(self, project: str, trust: str) -> Held:
        """Take the first free lane of a project, open to its job, until it is given back."""
        for number in itertools.count(1):
            place = self.root / project / f"{trust}-{number}"
            with contextlib.suppress(FileExistsError, FileNotFoundError):  # it is removed this moment
                place.mkdir(mode=0o700, parents=True, exist_ok=True)
            held = self.lock(place)
            if held is not None:
                os.utime(place / _LOCK)  # the time of its last use
                held.open()
                return held
        raise AssertionError("there is always another number")

    def lock(self, place: Path) -> Held | None:
        """Take one lane; None when somebody has it."""
        try:
            lock = (place / _LOCK).open("ab")
        except FileNotFoundError:  # it was removed this moment
            return None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(lock.fileno()).st_ino != (place / _LOCK).stat().st_ino:
                raise FileNotFoundError
        except (BlockingIOError, FileNotFoundError):
            lock.close()
            return None
        return Held(place, lock)

    def items(self) -> list[Item]:
        """List the lanes with their sizes, and which of them some job or run holds now."""
        found = []
        for lock in sorted(self.root.glob(f"[!.]*/*/{_LOCK}")):
            place = lock.parent
            with contextlib.suppress(FileNotFoundError):  # it is removed this moment
                used_at, held = lock.stat().st_mtime, self.lock(place)
                if held is not None:
                    held.lock.close()
                name = f"{place.parent.name}/{place.name}"
                found.append(Item(KIND, name, _bytes(place), used_at, "" if held else "a run has it"))
        return found

    def remove(self, name: str) -> bool:
        """Remove a lane; False when a job has taken it meanwhile."""
        place = self.root / name
        held = self.lock(place)
        if held is None:
            return False
        try:
            gone = self.root / f"{_GONE}{os.urandom(8).hex()}"
            place.rename(gone)  # who waits for its lock finds that it is another's
        finally:
            held.lock.close()
        remove(gone)
        with contextlib.suppress(OSError):  # the last of its project
            place.parent.rmdir()
        return True

    def finish_removing(self) -> None:
        """Remove what is left of lanes whose removal was broken off."""
        for gone in self.root.glob(f"{_GONE}*"):
            remove(gone)

    def marked(self, name: str) -> list[Path]:
        """List the lanes that hold a file of this name."""
        return sorted(found.parent for found in self.root.glob(f"*/*/{name}"))

    def fill(self, place: Path, source: Source) -> Path:
        """Bring a lane to exactly one commit, clean, and return its working tree.

        Raises CommandFailed, CommandTimeout, and Unavailable when the master was waited for in vain.
        A lane that is damaged, or that cannot be cleaned, is begun afresh; it is given up only once a fresh fetch
        worked, so that a network that is down costs nobody a kept checkout.
        """
        lane = self.of(place)
        known, asked = self._known.pop(place, None), replace(source, token="", patience=None)
        if known is None or known.source != asked or lane.current() != source.sha:
            self._bring(place, lane, source)
            self._known[place] = _Known(asked)
            return lane.work_tree
        if known.sum is None or known.sum != _sum(lane, place):
            self._bring(place, lane, source)
            if known.sum is not None:  # jobs at this commit change files: to look for that would only take time
                known = replace(known, sum=None, changes=True)
            elif not known.changes:
                known = replace(known, sum=_sum(lane, place))
        self._known[place] = known
        return lane.work_tree

    def _bring(self, place: Path, lane: Lane, source: Source) -> None:
        """Have git bring a lane to a commit, whatever is in it."""
        waiting = source.patience.begin() if source.patience else None
        try:
            _fetch(lane, source, waiting)
            lane.checkout(source.sha, plain=source.plain)
        except errors.CommandTimeout:
            raise
        except errors.CommandFailed:
            self._begin_afresh(place, lane, source, waiting)

    def of(self, place: Path) -> Lane:
        """Return the repository and the tree of a place."""
        return self._lane(place, "git", _TREE)

    def ignored(self, place: Path, paths: Sequence[str]) -> set[str]:
        """Return those of some paths that the repository asks git to ignore."""
        return self.of(place).ignored(paths)

    def _lane(self, place: Path, git_dir: str, work_tree: str) -> Lane:
        account = (self._account.uid, self._account.gid) if self._account else None
        return Lane(place / git_dir, place / work_tree, account)

    def _begin_afresh(self, place: Path, lane: Lane, source: Source, waiting: Waiting | None) -> None:
        fresh = self._lane(place, "git-afresh", "work-afresh")
        try:
            _fetch(fresh, source, waiting)
        except BaseException:
            fresh.discard()
            raise
        _put_aside(place, lane)
        fresh.git_dir.rename(lane.git_dir)
        fresh.work_tree.rename(lane.work_tree)
        _fetch(lane, source, waiting)
        lane.checkout(source.sha, plain=source.plain)


def _sum(lane: Lane, place: Path) -> bytes | None:
    """Return the sum by which it is known that nobody has touched a tree; None when git has to be asked."""
    try:
        return untouched.look(lane.work_tree, place / _LOCK)
    except OSError:  # a job closed a directory, or somebody took the tree away
        return None


def _fetch(lane: Lane, source: Source, waiting: Waiting | None) -> None:
    while True:
        try:
            lane.update(source.url, source.sha, f"Authorization: Bearer {source.token}", ca_file=source.ca_file)
        except errors.CommandTimeout:
            raise
        except errors.CommandFailed as error:
            if waiting is None or not waiting.again():
                if waiting is not None and waiting.over:
                    raise errors.Unavailable(f"the code could not be fetched{waiting.over}: {error.tail}") from None
                raise
        else:
            return


def _put_aside(place: Path, lane: Lane) -> None:
    """Take a lane's files away; what another account owns cannot be removed, but it can be moved out of the way."""
    try:
        lane.discard()
    except OSError:
        broken = place / f"broken-{os.urandom(4).hex()}"
        lane.work_tree.rename(broken)
        shutil.rmtree(broken, ignore_errors=True)
        lane.discard()


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


def _bytes(place: Path) -> int:
    """Return what a tree takes on the disk; what a job may change meanwhile is counted as it is met."""
    total = 0
    for _, _, files, directory in os.fwalk(place, follow_symlinks=False):
        for name in files:
            with contextlib.suppress(OSError):
                total += os.stat(name, dir_fd=directory, follow_symlinks=False).st_blocks * 512
    return total


def give(tree: Path, account: Account) -> None:
    """Make an account own a tree, from the leaves up; links themselves, never what they point to."""
    for _, _, files, directory in os.fwalk(tree, topdown=False, follow_symlinks=False):
        for name in files:
            seen = os.stat(name, dir_fd=directory, follow_symlinks=False)
            if (seen.st_uid, seen.st_gid) != (account.uid, account.gid):
                os.chown(name, account.uid, account.gid, dir_fd=directory, follow_symlinks=False)
        os.fchown(directory, account.uid, account.gid)
