"""A person's own checkout: what it was made from, what is not committed, and a copy of either.

Here git runs with the person's own settings, as everything else they do in that directory does; it changes nothing.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from keepflow import errors
from keepflow.core.names import is_ref
from keepflow.tools import processes

_LISTING_LIMIT = 256 * processes.MIB
_TIMEOUT = 300.0  #: seconds; a first look at a large checkout takes a while


@dataclass(frozen=True, slots=True)
class WorkingTree:
    """A checkout as it stands. `sha` is "" before the first commit, `ref` is "" when no branch is checked out."""

    root: Path
    sha: str
    ref: str
    changed: int  #: files that differ from the commit
    new: int  #: files that git does not know and does not ignore

    def copy(self, place: Path) -> list[str]:
        """Copy it as it stands, without what git ignores, into a new directory; return what was left out (submodules).

        Links stay links. Raises CommandFailed and OSError.
        """
        place.mkdir(parents=True)
        left_out = []
        for name in self._files():
            source = self.root / name
            if _behind_link(self.root, Path(name)):
                continue  # its directory is a link now: for git the file is gone, and the link is copied as one
            try:
                mode = source.lstat().st_mode
            except (FileNotFoundError, NotADirectoryError):
                continue  # deleted and not committed yet
            if stat.S_ISDIR(mode):
                left_out.append(name.rstrip("/"))
            elif stat.S_ISREG(mode) or stat.S_ISLNK(mode):
                target = place / name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target, follow_symlinks=False)
        return left_out

    def copy_submodules(self, place: Path, left_out: list[str], *, recursive: bool) -> list[str]:
        """Copy the submodules among what `copy` left out, as they stand here; return what is still left out.

        One that is not checked out here is left out. Raises as `copy`.
        """
        listed = _git(self.root, "ls-files", "--stage", "-z").stdout.split(b"\0")
        known = {os.fsdecode(line.partition(b"\t")[2]) for line in listed if line.startswith(b"160000 ")}
        still = []
        for name in left_out:
            inner = working_tree(self.root / name) if name in known else None
            if inner is None or inner.root == self.root:
                still.append(name)
                continue
            beyond = inner.copy(place / name)
            if recursive:
                beyond = inner.copy_submodules(place / name, beyond, recursive=True)
            still += [f"{name}/{path}" for path in beyond]
        return still

    def copy_commit(self, sha: str, place: Path) -> None:
        """Write the files of a commit into a new directory; raises CommandFailed."""
        place.mkdir(parents=True)
        index = place.with_name(f"{place.name}.index")
        _git(self.root, "read-tree", sha, index=index)
        _git(self.root, "checkout-index", "--all", f"--prefix={place}/", index=index)

    def resolve(self, name: str) -> tuple[str, str]:
        """Return the full ref (or "") and the commit that a person means; raises NotFound."""
        for full in (name, f"refs/heads/{name}", f"refs/tags/{name}"):
            if is_ref(full) and (sha := self._commit(full)):
                return full, sha
        if sha := self._commit(name):
            return "", sha
        raise errors.NotFound(f"{self.root}: there is no branch, tag or commit {name[:80]!r}", code="no-ref")

    def message_of(self, sha: str) -> str:
        """Return the message of a commit."""
        return _git(self.root, "log", "-1", "--format=%B", sha).text.strip()

    def _commit(self, name: str) -> str:
        arguments = ("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
        done = _git(self.root, *arguments, check=False)
        return done.text.strip() if done.exit_code == 0 else ""

    def _files(self) -> Iterator[str]:
        listed = _git(self.root, "ls-files", "-z", "--cached", "--others", "--exclude-standard").stdout
        yield from dict.fromkeys(os.fsdecode(name) for name in listed.split(b"\0") if name)


def working_tree(place: Path) -> WorkingTree | None:
    """Return the checkout that a directory is in, or None when it is in none; raises CommandFailed, ProgramMissing."""
    inside = place.absolute()
    if not any((parent / ".git").exists() for parent in (inside, *inside.parents)):
        return None
    root = Path(os.fsdecode(_git(inside, "rev-parse", "--show-toplevel").stdout.removesuffix(b"\n")))
    told = _git(root, "status", "--porcelain=v2", "--branch", "-z", "--untracked-files=all", "--no-renames").stdout
    lines = told.split(b"\0")
    facts = dict(line[2:].split(b" ", 1) for line in lines if line.startswith(b"# branch."))
    sha = facts.get(b"branch.oid", b"").decode().replace("(initial)", "")
    branch = os.fsdecode(facts.get(b"branch.head", b""))
    ref = f"refs/heads/{branch}" if branch != "(detached)" and is_ref(f"refs/heads/{branch}") else ""
    new = sum(line.startswith(b"? ") for line in lines)
    changed = sum(line.startswith((b"1 ", b"2 ", b"u ")) for line in lines)
    return WorkingTree(root, sha, ref, changed, new)


def _behind_link(root: Path, name: Path) -> bool:
    """Say whether a directory on the way to a file is a link."""
    return any((root / parent).is_symlink() for parent in list(name.parents)[:-1])


def _git(place: Path, *arguments: str, check: bool = True, index: Path | None = None) -> processes.Done:
    env = {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"}
    return processes.run(
        ["git", "-c", "core.hooksPath=/dev/null", *arguments],
        cwd=place,
        env=processes.clean_env(**env, **({"GIT_INDEX_FILE": str(index)} if index else {})),
        timeout=_TIMEOUT,
        check=check,
        limit=_LISTING_LIMIT,
    )
