"""The master's bare copy of a project's repository: fetched once, read locally, served to agents.

Nothing in it is ever executed or checked out. One fetch at a time per mirror is the caller's business.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from keepflow import errors
from keepflow.core.names import is_sha
from keepflow.tools import processes
from keepflow.tools.git.checks import check_ref, check_sha
from keepflow.tools.git.remotes import LOCAL_TIMEOUT, NETWORK_TIMEOUT, Remote, environment, legible_refs

if TYPE_CHECKING:
    import git

ALL_REFS = ("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")
_MODULE_KEYS = r"^submodule\..*\.(path|url)$"
_LOCK_LIFE = 30.0  #: seconds
_COMMIT_SLACK = processes.MIB  #: most bytes of a commit object that is read beside a file


@dataclass(frozen=True, slots=True)
class Commit:
    """One commit as people see it; subject and author are hostile text. `at` is the committer's UTC microseconds."""

    sha: str
    subject: str
    author: str
    at: int


@dataclass(frozen=True, slots=True)
class Made:
    """Who made a commit and what they said; hostile text."""

    author: str
    committer_email: str
    message: str


@dataclass(frozen=True, slots=True)
class Merged:
    """What became of a merge: its commit, or the files in conflict (hostile names)."""

    sha: str | None
    conflicts: tuple[str, ...] = ()


def init_bare(path: Path) -> None:
    """Make an empty bare repository without hooks; harmless when it exists."""
    path.mkdir(parents=True, exist_ok=True)
    processes.run(
        ["git", "init", "--quiet", "--bare", "--template=", "--end-of-options", str(path.absolute())],
        env=environment(),
        timeout=LOCAL_TIMEOUT,
    )


class Mirror:
    """A bare repository on the master; `path` must exist (`init_bare`)."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()

    def fetch(
        self,
        remote: Remote,
        refspecs: Sequence[str] = ALL_REFS,
        prune: bool = True,
        timeout: float = NETWORK_TIMEOUT,
    ) -> None:
        """Make the refs equal to the remote's (all branches and tags by default); `refspecs` are trusted text.

        Raises BadRemote, CommandFailed, CommandTimeout.
        """
        options = ["--quiet", "--force", "--no-tags", "--no-write-fetch-head", *(["--prune"] if prune else [])]
        argv = ["fetch", *options, "--end-of-options", remote.url, *refspecs]
        try:
            self._git(argv, remote.environment(), timeout)
        except errors.CommandFailed:
            if not self._remove_stale_locks():
                raise
            self._git(argv, remote.environment(), timeout)

    def fetch_ref(self, remote: Remote, ref: str, timeout: float = NETWORK_TIMEOUT) -> None:
        """Fetch one ref under its own full name, such as `refs/pull/7/head`; raises as `fetch`."""
        self.fetch(remote, [f"+{check_ref(ref)}:{ref}"], prune=False, timeout=timeout)

    def has(self, sha: str) -> bool:
        """Say whether a commit is here."""
        return self._git(["cat-file", "-e", f"{check_sha(sha)}^{{commit}}"], check=False).exit_code == 0

    def resolve(self, ref: str) -> str | None:
        """Return the commit a full ref name points to, or None."""
        if ref.startswith("refs/heads/") and (found := self._loose(check_ref(ref))) is not None:
            return found
        done = self._git(
            ["rev-parse", "--verify", "--quiet", "--end-of-options", f"{check_ref(ref)}^{{commit}}"], check=False
        )
        return done.text.strip() if done.exit_code == 0 else None

    def beginning_with(self, start: str) -> list[str]:
        """List the commits whose ids begin like this (4 to 64 hex digits); no ref of that name is among them."""
        if not re.fullmatch(r"[0-9a-f]{4,64}", start):
            raise errors.UsageError(f"not the beginning of a commit id: {start[:80]!r}", code="bad-sha")
        found = self._git(["rev-parse", f"--disambiguate={start}"]).text.split()
        return [sha for sha in found if self._git(["cat-file", "-t", check_sha(sha)]).text.strip() == "commit"]

    def _loose(self, ref: str) -> str | None:
        """Return the commit of a branch that was just fetched and so has a file of its own; git lets it be no tag."""
        try:
            text = (self.path / ref).read_text().strip()
        except (OSError, ValueError):
            return None
        return text if is_sha(text) else None

    def heads(self) -> dict[str, str]:
        """Return every branch and tag with its commit, under the full names that `ls_remote` uses."""
        columns = "%(objectname) %(refname)%00%(*objectname) %(refname)^{}%00"
        done = self._git(["for-each-ref", f"--format={columns}", "refs/heads", "refs/tags"])
        pairs = (line.strip(b"\n").partition(b" ")[::2] for line in done.stdout.split(b"\0"))
        return legible_refs((sha, name) for sha, name in pairs if sha)

    def read_file(self, sha: str, path: str, limit: int) -> bytes | None:
        """Return a file at a commit, or None when the commit has no such file; `limit` in bytes; raises as `read`."""
        return self.read(sha, path, limit)[1]

    def read(self, sha: str, path: str, limit: int) -> tuple[Made, bytes | None]:
        """Return what a commit says of itself, and a file in it, or None when it has no such file; `limit` in bytes.

        Raises NotFound when the commit is not here, TooLarge past the limit, UsageError for a path git cannot name.
        """
        if "\n" in path or "\0" in path or any(part in ("", ".", "..") for part in path.split("/")):
            raise errors.UsageError(f"not a path in a repository: {path[:80]!r}", code="bad-path")
        done = self._git(
            ["cat-file", "--batch"],
            input=f"{check_sha(sha)}^{{commit}}\n{sha}:{path}\n".encode(errors="surrogateescape"),
            limit=limit + _COMMIT_SLACK,
        )
        commit, rest = _next_object(done.stdout)
        if commit is None:
            raise errors.NotFound(f"commit {sha} is not in {self.path.name}; it may have been removed by a force push")
        content, _ = _next_object(rest)
        if content is not None and len(content) > limit:
            raise errors.TooLarge(f"{path} at {sha[:12]} is larger than {limit} bytes")
        return _made(commit), content

    def changed(self, earlier: str, later: str, limit: int) -> tuple[str, ...] | None:
        """List the files that differ between two commits; None when it is more than `limit` of them.

        Raises NotFound when one of the commits is not here.
        """
        argv = ["diff-tree", "-r", "-z", "--name-only", "--no-renames", "--no-commit-id", "--end-of-options"]
        try:
            done = self._git([*argv, check_sha(earlier), check_sha(later)], check=False)
        except errors.TooLarge:
            return None
        if done.exit_code:
            raise errors.NotFound(f"commits {earlier} and {later} are not both in {self.path.name}")
        names = done.stdout.decode(errors="surrogateescape").split("\0")[:-1]
        return tuple(names) if len(names) <= limit else None

    def submodules(self, sha: str, limit: int) -> tuple[dict[str, str], dict[str, str]]:
        """Return where a commit names commits of other repositories (path → commit), and their addresses by path.

        Addresses are hostile text. What they are called in `.gitmodules` is not looked at: it once was a path.
        `limit` is the most there may be. Raises TooLarge, and CommandFailed when the commit is not here.
        """
        done = self._git(["ls-tree", "-r", "-z", f"{check_sha(sha)}^{{tree}}"])
        lines = (line.partition(b"\t") for line in done.stdout.split(b"\0") if line.startswith(b"160000 "))
        commits = {path.decode(errors="surrogateescape"): facts.split(b" ")[2].decode() for facts, _, path in lines}
        if len(commits) > limit:
            raise errors.TooLarge(f"{len(commits)} submodules at {sha[:12]}; at most {limit} are fetched")
        if not commits:
            return {}, {}
        asked = ["config", "--blob", f"{sha}:.gitmodules", "--no-includes", "-z", "--get-regexp", _MODULE_KEYS]
        said = self._git(asked, check=False).stdout.decode(errors="replace").split("\0")
        facts = dict(line.split("\n", 1) for line in said if "\n" in line)
        places = {value: key.removesuffix(".path") for key, value in facts.items() if key.endswith(".path")}
        return commits, {path: facts.get(f"{name}.url", "") for path, name in places.items()}

    def merge_base(self, one: str, other: str) -> str | None:
        """Return the commit that two commits have in common, None when there is none or one of them is not here."""
        done = self._git(["merge-base", check_sha(one), check_sha(other)], check=False)
        return done.text.split("\n", 1)[0] if done.exit_code == 0 else None

    def merge(self, target: str, head: str, message: str, by: tuple[str, str]) -> Merged:
        """Merge a commit into another one, without any checkout, and return the commit, or the files in conflict.

        A head that contains the target is its own merge. The same two commits always give the same merge. `by` is the
        name and e-mail of the committer. Raises CommandFailed when the two have nothing in common, or git is too old.
        """
        if self.is_ancestor(target, head):
            return Merged(head)
        argv = ["merge-tree", "--write-tree", "-z", "--name-only", "--no-messages", check_sha(target), check_sha(head)]
        done = self._git(argv, check=False)
        if done.exit_code > 1:
            raise processes.failed(done)
        tree, *files = done.stdout.decode(errors="surrogateescape").rstrip("\0").split("\0")
        if done.exit_code:
            return Merged(None, tuple(dict.fromkeys(files)))
        at = self._git(["show", "--no-patch", "--format=%ct +0000", "--end-of-options", head]).text.strip()
        who = {
            f"GIT_{role}_{fact}": value
            for role in ("AUTHOR", "COMMITTER")
            for fact, value in (("NAME", by[0]), ("EMAIL", by[1]), ("DATE", f"@{at}"))
        }
        made = self._git(
            ["commit-tree", "-p", target, "-p", head, tree], {**environment(), **who}, input=message.encode()
        )
        return Merged(made.text.strip())

    def tagger(self, ref: str) -> str:
        """Return the e-mail of who made an annotated tag; empty for a plain one, and for one that is not here."""
        done = self._git(["for-each-ref", "--format=%(taggeremail:trim)", check_ref(ref)])
        return done.text.strip()

    def is_ancestor(self, earlier: str, later: str) -> bool:
        """Say whether `later` contains `earlier`; raises CommandFailed when one of them is not here."""
        done = self._git(["merge-base", "--is-ancestor", check_sha(earlier), check_sha(later)], check=False)
        if done.exit_code > 1:
            raise processes.failed(done)
        return done.exit_code == 0

    def log(self, base: str | None, head: str, limit: int) -> list[Commit]:
        """Return the newest commits that `head` has and `base` has not (None = from the beginning), newest first.

        Raises NotFound when one of them is not here.
        """
        import git  # imported here, for most processes never read a history

        span = f"{check_sha(base)}..{check_sha(head)}" if base else check_sha(head)
        with git.Repo(self.path) as repo:
            repo.git.update_environment(**environment())
            try:
                return [_commit(found) for found in repo.iter_commits(span, max_count=limit)]
            except git.GitCommandError as error:
                raise errors.NotFound(f"commits {span} are not in {self.path.name}") from error

    def tidy(self) -> None:
        """Pack what many fetches left lying about, without forgetting any commit; slow, for a quiet hour."""
        self._git(["repack", "-a", "-d", "-k", "--quiet"], timeout=NETWORK_TIMEOUT)
        self._git(["pack-refs", "--all"])

    def _remove_stale_locks(self) -> bool:
        """Remove lock files that a killed git left (a living one holds them for moments); say if there were any."""
        found = False
        for lock in self.path.rglob("*.lock"):
            with contextlib.suppress(FileNotFoundError):
                if lock.lstat().st_mtime < time.time() - _LOCK_LIFE:
                    lock.unlink()
                    found = True
        return found

    def _git(
        self,
        arguments: Sequence[str],
        env: dict[str, str] | None = None,
        timeout: float = LOCAL_TIMEOUT,
        *,
        input: bytes | None = None,
        check: bool = True,
        limit: int = 64 * processes.MIB,
    ) -> processes.Done:
        return processes.run(
            ["git", *arguments],
            env={**(env or environment()), "GIT_DIR": str(self.path)},
            timeout=timeout,
            input=input,
            check=check,
            limit=limit,
        )


def _next_object(answer: bytes) -> tuple[bytes | None, bytes]:
    """Split one object off the answer of `cat-file --batch`: its content (None unless a commit or file), the rest."""
    header, _, rest = answer.partition(b"\n")
    words = header.split(b" ")
    if len(words) != 3 or not words[2].isdigit():  # "NAME missing", where NAME may contain spaces
        return None, rest
    size = int(words[2])
    return (rest[:size] if words[1] in (b"commit", b"blob") else None), rest[size + 1 :]


def _made(commit: bytes) -> Made:
    """Read a commit object; what is missing is empty."""
    head, _, message = commit.decode(errors="replace").replace("\0", "").partition("\n\n")
    lines = dict(reversed([line.split(" ", 1) for line in head.split("\n") if " " in line]))
    author = lines.get("author", "").rpartition(" <")[0]
    email = lines.get("committer", "").rpartition("<")[2].partition(">")[0]
    return Made(author, email, message.strip("\n"))


def _commit(found: git.Commit) -> Commit:
    subject = found.summary if isinstance(found.summary, str) else found.summary.decode(errors="replace")
    return Commit(found.hexsha, subject, found.author.name or "", found.committed_date * 1_000_000)
