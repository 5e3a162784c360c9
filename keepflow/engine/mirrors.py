"""The master's own copies of the repositories: fetched once, with the project's credential; agents read from here."""

from __future__ import annotations

import threading
from collections import OrderedDict, defaultdict
from dataclasses import dataclass
from pathlib import Path

from keepflow import errors
from keepflow.core.matching import OWN_EMAIL, OWN_NAME, Changes
from keepflow.crypto.vault import Vault
from keepflow.store.projects import Project, git_token_place
from keepflow.tools.git import Commit, Made, Merged, Mirror, Remote, check_ref, init_bare, ls_remote

#: Names the flow file may have; a project can name one of its own.
FLOW_FILES = (".keepflow.yml", ".keepflow.yaml")
FLOW_FILE_LIMIT = 256 * 1024
#: The main branch is the first of these that exists.
MAIN_BRANCHES = ("refs/heads/main", "refs/heads/master")
_FETCH_SECONDS = 120.0
_ANSWERS_KEPT = 1024  #: whether one commit contains another never changes either
_COMMIT_BYTES = 4 * 1024 * 1024  #: of what commits say, which never changes: a storm of hooks is looked at in parts
_MOST_CHANGED = 20_000  #: files; of a commit that changes more nobody asks which


@dataclass(frozen=True, slots=True)
class AtCommit:
    """What a commit says: who made it, and the name and content of its flow file, None when it has none."""

    made: Made
    flow_file: tuple[str, bytes] | None

    @property
    def size(self) -> int:
        """About the bytes that it takes to remember it."""
        return 1024 + len(self.made.message) + (len(self.flow_file[1]) if self.flow_file else 0)


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a fetch of one ref found: the commit the ref has at the remote, None when the remote has no such ref."""

    head: str | None


class Mirrors:
    """One bare repository per project under `KEEPFLOW_HOME/mirrors`; one fetch per project at a time."""

    def __init__(self, home: Path, vault: Vault) -> None:
        self._root = home / "mirrors"
        self._vault = vault
        self._locks: defaultdict[int, threading.Lock] = defaultdict(threading.Lock)
        self._asked: dict[tuple[int, str], tuple[int, str]] = {}  # (project, ref) → when its remote was asked, head
        self._commits: OrderedDict[tuple[int, str, str], AtCommit] = OrderedDict()
        self._commit_bytes = 0
        self._contained: OrderedDict[tuple[int, str, str], bool] = OrderedDict()

    def path(self, project: Project) -> Path:
        """Return where the mirror of a project lies."""
        return self._root / f"{project.name}.git"

    def fetch(self, project: Project, ref: str) -> Fetched:
        """Bring one ref of the remote here. Raises BadRemote, CommandFailed, CommandTimeout."""
        remote, mirror = self.remote(project), self._mirror(project)
        with self._locks[project.id]:
            try:
                mirror.fetch_ref(remote, ref, _FETCH_SECONDS)
            except errors.CommandFailed as error:
                if isinstance(error, errors.CommandTimeout):
                    raise
                if ls_remote(remote, pulls=True, timeout=_FETCH_SECONDS).get(check_ref(ref)) is None:
                    return Fetched(None)
                mirror.fetch(
                    remote, timeout=_FETCH_SECONDS
                )  # a branch `a` that is gone there is in the way of `a/b` here
            return Fetched(mirror.resolve(ref))

    def fetch_told(self, project: Project, ref: str, sha: str, told_at: int, now: int) -> Fetched:
        """Bring a ref here of which somebody said at `told_at` that it is at `sha`.

        A storm of hooks costs one fetch: the remote is not asked again when it was asked after that and said the same.
        """
        asked_at, head = self._asked.get((project.id, ref), (0, ""))
        if head == sha and asked_at > told_at:
            return Fetched(head)
        fetched = self.fetch(project, ref)
        if fetched.head is not None:
            self._asked[project.id, ref] = (now, fetched.head)
        else:
            self._asked.pop((project.id, ref), None)
        return fetched

    def has(self, project: Project, sha: str) -> bool:
        """Say whether a commit is in the mirror."""
        return self._mirror(project).has(sha)

    def is_ancestor(self, project: Project, earlier: str, later: str) -> bool:
        """Say whether one commit is contained in another; False when one of them is not here."""
        try:
            return self._mirror(project).is_ancestor(earlier, later)
        except errors.CommandFailed:
            return False

    def contains(self, project: Project, head: str, sha: str) -> bool:
        """Say whether a commit is part of a head that was fetched: its whole history is here, so the answer stays."""
        key = (project.id, head, sha)
        found = self._contained.get(key)
        if found is None:
            found = self._contained[key] = self.is_ancestor(project, sha, head)
            while len(self._contained) > _ANSWERS_KEPT:
                self._contained.popitem(last=False)
        return found

    def commit(self, project: Project, head: str, start: str) -> str | None:
        """Return the one commit of a head's history whose id begins like this; None for none or several."""
        known = self._mirror(project).beginning_with(start)
        found = [sha for sha in known if sha == head or self.contains(project, head, sha)]
        return found[0] if len(found) == 1 else None

    def heads(self, project: Project, *, pulls: bool = False) -> dict[str, str]:
        """Ask the remote for its branches and tags, and the heads of pull requests when they are asked for.

        Raises BadRemote, CommandFailed, CommandTimeout.
        """
        return ls_remote(self.remote(project), pulls=pulls)

    def read(self, project: Project, sha: str) -> AtCommit:
        """Return what a commit says of itself, and its flow file.

        Raises TooLarge, and NotFound when the commit is not here.
        """
        key = (project.id, project.flow_file, sha)
        found = self._commits.get(key)
        if found is None:
            found = self._commits[key] = self._read(project, sha)
            self._commit_bytes += found.size
            while len(self._commits) > 1 and self._commit_bytes > _COMMIT_BYTES:
                self._commit_bytes -= self._commits.popitem(last=False)[1].size
        return found

    def _read(self, project: Project, sha: str) -> AtCommit:
        names = FLOW_FILES if project.flow_file in FLOW_FILES else (project.flow_file,)
        for name in names:
            made, content = self._mirror(project).read(sha, name, FLOW_FILE_LIMIT)
            if content is not None:
                return AtCommit(made, (name, content))
        return AtCommit(made, None)

    def changes(self, project: Project, earlier: str, later: str) -> Changes:
        """Return the files that differ between two commits."""
        try:
            files = self._mirror(project).changed(earlier, later, _MOST_CHANGED)
        except errors.NotFound:
            return Changes(unknown=f"{earlier[:12]}, from which it came, is gone from the repository")
        return Changes(files) if files is not None else Changes(unknown=f"more than {_MOST_CHANGED} files changed")

    def since_main(self, project: Project, ref: str, sha: str) -> Changes:
        """Return the files in which a new branch differs from where it left the main branch, as far as that is here."""
        mirror = self._mirror(project)
        for main in MAIN_BRANCHES:
            head = mirror.resolve(main) if main != ref else None
            base = mirror.merge_base(head, sha) if head else None
            if base is not None and base != sha:
                return self.changes(project, base, sha)
        return Changes(unknown="nobody can tell what is new on a branch that is new")

    def merge(self, project: Project, target: str, head: str, message: str) -> Merged:
        """Merge two commits that are here; raises what `Mirror.merge` raises."""
        return self._mirror(project).merge(target, head, message, (OWN_NAME, OWN_EMAIL))

    def tagger(self, project: Project, ref: str) -> str:
        """Return the e-mail of who made an annotated tag that was fetched; empty for a plain one."""
        return self._mirror(project).tagger(ref)

    def commits(self, project: Project, base: str | None, head: str, limit: int) -> list[Commit]:
        """List the newest commits that `head` has and `base` has not, newest first; empty when they are not here."""
        try:
            return self._mirror(project).log(base, head, limit)
        except errors.NotFound:
            return []

    def lock(self, project: Project) -> threading.Lock:
        """Return the lock under which repositories of a project are fetched."""
        return self._locks[project.id]

    def tidy(self, project: Project) -> None:
        """Pack what many fetches left lying about; slow."""
        with self._locks[project.id]:
            self._mirror(project).tidy()

    def remote(self, project: Project) -> Remote:
        """Return the project's repository with its credential."""
        token = project.git_token
        return Remote(
            project.repo,
            token=self._vault.unseal(token, git_token_place(project.name)).decode() if token else None,
            ssh_key_file=Path(project.git_ssh_key_file) if project.git_ssh_key_file else None,
            known_hosts_file=Path(project.git_known_hosts_file) if project.git_known_hosts_file else None,
            allow_local=True,
        )

    def _mirror(self, project: Project) -> Mirror:
        path = self.path(project)
        if not (path / "HEAD").exists():
            init_bare(path)
        return Mirror(path)
