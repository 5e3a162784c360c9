"""Submodules of a project's commits: fetched by the master, from addresses its own file allows, for agents to read.

What a repository writes into `.gitmodules` is a wish. Which addresses may be asked is said by the master's file
(`submodules` of the project), and the project's credential goes to the project's own server alone.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

from keepflow import errors
from keepflow.core.modules import DEEPEST, MOST, address, allowed, same_host
from keepflow.core.text import quoted
from keepflow.engine.context import Master
from keepflow.store.projects import Project
from keepflow.tools.git import Mirror, Remote, init_bare

_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Module:
    """One submodule: where it lies in the checkout, its commit, and the name of its repository on the master."""

    path: str
    sha: str
    repository: str


def place_of(master: Master, project: Project, repository: str) -> Path:
    """Return where the copy of a submodule's repository lies, or would."""
    return master.home / "mirrors" / f"{project.name}.modules" / f"{repository}.git"


def of_commit(master: Master, project: Project, sha: str, *, recursive: bool) -> list[Module]:
    """List the submodules of a commit, fetched; those in submodules come after the one they are in.

    Raises Refused `no-submodule`, TooLarge, CommandFailed, CommandTimeout.
    """
    found: list[Module] = []
    todo = [("", master.mirrors.path(project), project.repo, sha, 1)]
    while todo:
        below, mirror, base, commit, depth = todo.pop(0)
        if depth > DEEPEST:
            raise errors.Refused(f"{below} lies more than {DEEPEST} submodules deep", code="no-submodule")
        commits, addresses = Mirror(mirror).submodules(commit, MOST - len(found))
        for path, wanted in sorted(commits.items()):
            url = _checked(project, f"{below}{path}", base, addresses.get(path, ""))
            module = Module(f"{below}{path}", wanted, hashlib.sha256(url.encode()).hexdigest()[:32])
            found.append(module)
            place = _fetch(master, project, module, url)
            if recursive:
                todo.append((f"{module.path}/", place, url, wanted, depth + 1))
    return found


def _checked(project: Project, path: str, base: str, said: str) -> str:
    if not said:
        raise errors.Refused(f".gitmodules does not say where {quoted(path)} comes from", code="no-submodule")
    url = address(base, said)
    if not allowed(url, project.submodules):
        raise errors.Refused(
            f"the submodule {quoted(path)} comes from {quoted(url)}, which this project may not have: write it, or "
            f"what it begins with, under projects.{project.name}.submodules into keepflow.yml",
            code="no-submodule",
        )
    return url


def _fetch(master: Master, project: Project, module: Module, url: str) -> Path:
    path = place_of(master, project, module.repository)
    if not (path / "HEAD").exists():
        init_bare(path)
    mirror = Mirror(path)
    with master.mirrors.lock(project):
        if not mirror.has(module.sha):
            remote = _remote(master, project, url)
            mirror.fetch(remote, timeout=_SECONDS)
            if not mirror.has(module.sha):
                _fetch_one(mirror, remote, module)
    return path


def _fetch_one(mirror: Mirror, remote: Remote, module: Module) -> None:
    """Ask for a commit that no branch or tag leads to; most servers give it."""
    try:
        mirror.fetch(remote, [f"+{module.sha}:refs/keepflow/{module.sha}"], prune=False, timeout=_SECONDS)
    except errors.CommandFailed as error:
        if isinstance(error, errors.CommandTimeout):
            raise
        sentence = f"commit {module.sha[:12]} of the submodule {quoted(module.path)} is not in its repository"
        raise errors.Refused(sentence, code="no-submodule") from None


def _remote(master: Master, project: Project, url: str) -> Remote:
    """Return a submodule's repository; another server than the project's is asked as nobody."""
    own = master.mirrors.remote(project)
    if same_host(url, project.repo) or (url.startswith("/") and project.repo.startswith("/")):
        return replace(own, url=url)
    return Remote(url, allow_local=True)
