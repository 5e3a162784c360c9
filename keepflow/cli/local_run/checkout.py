"""What a local run works on: a copy of the person's checkout, so that a script can spoil nothing of theirs."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from keepflow.agent.job_host import Saying
from keepflow.agent.lanes import Source
from keepflow.core.text import one_line, quoted
from keepflow.errors import UsageError
from keepflow.tools.git.working_tree import WorkingTree, working_tree
from keepflow.wire.messages import RunJob

_NO_COMMIT = "0" * 40


@dataclass(frozen=True, slots=True)
class Checkout:
    """The code of a local run. `copy` fills a new directory with it and returns what was left out."""

    root: Path
    sha: str
    ref: str
    message: str
    sentence: str  #: what it is, for the person
    copy: Callable[[Path], list[str]]
    tree: WorkingTree | None = None  #: whose files as they stand are copied; None for a commit, or no repository

    def add_submodules(self, place: Path, left_out: list[str], wanted: str) -> list[str]:
        """Copy the submodules that a flow wants (`core.flows.Checkout`), and return what is still left out."""
        if self.tree is None or not wanted:
            return left_out
        return self.tree.copy_submodules(place, left_out, recursive=wanted == "recursive")


def checkout(here: Path, ref: str) -> Checkout:
    """Return the working tree a directory is in, with all that is not committed, or the commit `ref` names.

    A directory that is in no repository is taken as it is. Raises NotFound for a ref that is not there.
    """
    tree = working_tree(here)
    if tree is None:
        return _plain(here, ref)
    return _at_commit(tree, ref) if ref else _as_it_stands(tree)


def _as_it_stands(tree: WorkingTree) -> Checkout:
    at = f"at {tree.sha[:10]}" if tree.sha else "before its first commit"
    changes = [f"{tree.changed} changed" if tree.changed else "", f"{tree.new} new" if tree.new else ""]
    uncommitted = " and ".join(filter(None, changes))
    holds = f"with what is not committed ({uncommitted})" if uncommitted else "with nothing uncommitted"
    branch = f" ({one_line(tree.ref.removeprefix('refs/heads/'), 60)})" if tree.ref else ""
    sentence = f"a copy of {tree.root} {at}{branch}, {holds}, without what git ignores"
    message = tree.message_of(tree.sha) if tree.sha else ""
    return Checkout(tree.root, tree.sha or _NO_COMMIT, tree.ref, message, sentence, tree.copy, tree)


def _at_commit(tree: WorkingTree, ref: str) -> Checkout:
    full, sha = tree.resolve(ref)

    def copy(place: Path) -> list[str]:
        tree.copy_commit(sha, place)
        return []

    sentence = f"commit {sha[:10]} ({one_line(ref, 60)}) of {tree.root}, without what is not committed"
    return Checkout(tree.root, sha, full, tree.message_of(sha), sentence, copy)


def _plain(here: Path, ref: str) -> Checkout:
    if ref:
        raise UsageError(f"{here} is no git repository, so it has no {quoted(ref)}", code="no-repository")

    def copy(place: Path) -> list[str]:
        def itself(directory: str, names: list[str]) -> list[str]:
            return [name for name in names if place.is_relative_to(Path(directory, name))]

        shutil.copytree(here, place, symlinks=True, ignore=itself)
        return []

    return Checkout(here, _NO_COMMIT, "", "", f"a copy of {here}, which is no git repository", copy)


class OneTree:
    """The one working tree that all jobs of a local run share; fits `agent.job_host.Code`."""

    def __init__(self, tree: Path) -> None:
        self._tree = tree

    @contextmanager
    def of(  # it holds the code from the start, and nobody takes a local run up again
        self,
        order: RunJob,  # noqa: ARG002 - see above
        source: Source,  # noqa: ARG002 - see above
        again: Path | None = None,  # noqa: ARG002 - see above
    ) -> Iterator[Path]:
        """Hold the tree as it is: the jobs of a local run come one after the other, and each finds what was left."""
        yield self._tree

    def hand_on(self, order: RunJob, source: Source, log: Saying) -> None:
        """Do nothing: a local run has one machine, and so no order asks for this."""
