"""Real git repositories for tests: one command, own configuration, fixed author."""

from __future__ import annotations

import subprocess
from pathlib import Path

ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "HOME": "/nonexistent",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "Ann",
    "GIT_AUTHOR_EMAIL": "ann@example.org",
    "GIT_COMMITTER_NAME": "Ann",
    "GIT_COMMITTER_EMAIL": "ann@example.org",
    "GIT_AUTHOR_DATE": "2024-02-29T12:00:00Z",
    "GIT_COMMITTER_DATE": "2024-02-29T12:00:00Z",
    "GIT_ALLOW_PROTOCOL": "file:http",
}


def git(repository: Path, *arguments: str, data: bytes | None = None, **env: str) -> str:
    """Run git in a repository and return its output without the last line end."""
    done = subprocess.run(
        ["git", "-C", str(repository), *arguments],
        env={**ENVIRONMENT, **env},
        input=data,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, f"git {arguments}: {done.stderr.decode(errors='replace')}"
    return done.stdout.decode(errors="replace").rstrip("\n")


def bare(path: Path) -> Path:
    """Make an empty bare repository that serves any commit."""
    path.mkdir(parents=True)
    git(path, "init", "--quiet", "--bare", "--initial-branch=master", ".")
    git(path, "config", "uploadpack.allowAnySHA1InWant", "true")
    return path


def commit(
    repository: Path,
    files: dict[str, str | bytes | None],
    message: str = "change",
    ref: str = "master",
    author: str = "Ann",
) -> str:
    """Add one commit with these files (None removes one) to a branch of a bare repository; return its id."""
    parent = git(repository, "for-each-ref", "--format=%(objectname)", f"refs/heads/{ref}")
    index = {"GIT_INDEX_FILE": str(repository / "test.index")}
    git(repository, "read-tree", *([parent] if parent else ["--empty"]), **index)
    for name, content in files.items():
        if content is None:
            git(repository, "update-index", "--index-info", data=f"0 {'0' * 40}\t{name}\n".encode(), **index)
            continue
        data = content.encode() if isinstance(content, str) else content
        blob = git(repository, "hash-object", "-w", "--stdin", data=data)
        git(repository, "update-index", "--add", "--cacheinfo", f"100644,{blob},{name}", **index)
    tree = git(repository, "write-tree", **index)
    parents = ["-p", parent] if parent else []
    sha = git(repository, "commit-tree", tree, *parents, data=message.encode(), GIT_AUTHOR_NAME=author)
    git(repository, "update-ref", f"refs/heads/{ref}", sha)
    return sha
