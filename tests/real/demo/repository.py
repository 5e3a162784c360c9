"""The repository of a world: a bare one with keepflow's hook, and the clone a developer works in."""

from __future__ import annotations

import re
import secrets
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

from tests.real.sample import commit, git, make_repository, set_marker

Edit = Callable[[str], str] | None


def replacing(*pairs: str) -> Edit:
    """Return an edit that changes texts, which must be there: the first into the second, the third into the fourth…"""

    def edit(text: str) -> str:
        for old, new in zip(pairs[::2], pairs[1::2], strict=True):
            if old not in text:
                raise ValueError(f"nothing to replace: {old!r}")
            text = text.replace(old, new)
        return text

    return edit


def instead(text: str) -> Edit:
    """Return an edit that puts a text in the place of the whole file."""
    return lambda _: text


class Repository:
    """`bare` is what the master reads, `work` is where a person edits and pushes."""

    def __init__(self, root: Path, image: str, *, app: str, compress: str) -> None:
        """Make both. `image` is the name the flow file gives to what it builds; nothing is pushed yet."""
        self.bare, self.work = root / "keepwork.git", root / "keepwork"
        make_repository(self.work, app=app, compress=compress)
        flow_file = self.work / ".keepflow.yml"
        flow_file.write_text(re.sub(r"^image: .*$", f"image: {image}", flow_file.read_text(), flags=re.MULTILINE))
        commit(self.work, "Name the image")
        git(root, "init", "--quiet", "--bare", "--initial-branch=master", str(self.bare))
        git(self.work, "config", "user.name", "Ann")
        git(self.work, "config", "user.email", "ann@example.org")
        git(self.work, "remote", "add", "origin", str(self.bare))
        git(self.work, "branch", "dev")

    def install_hook(self, post_receive: str, path: str) -> None:
        """Put the text that `keepflow hook show` printed where git runs it; `path` is where keepflow is found."""
        hook = self.bare / "hooks" / "post-receive"
        first, rest = post_receive.split("\n", 1)
        hook.write_text(f"{first}\nPATH={path}:$PATH\nexport PATH\n{rest}")
        hook.chmod(0o755)

    def change(self, branch: str, text: str = "") -> tuple[str, str]:
        """Commit a change that visitors can see on a branch; return the marker they will see and the commit."""
        marker = text or f"{branch}-{secrets.token_hex(4)}"
        self._check_out(branch)
        set_marker(self.work, marker)
        return marker, commit(self.work, f"Show {marker}")

    def edit(self, branch: str, edits: dict[str, Edit], message: str) -> str:
        """Commit edits of files (old text → new text; None removes the file) on a branch; return the commit."""
        self._check_out(branch)
        for name, edit in edits.items():
            path = self.work / name
            if edit is None:
                path.unlink()
            else:
                path.write_text(edit(path.read_text()))
        return commit(self.work, message)

    def _check_out(self, branch: str) -> None:
        """Go to a branch, which is made from master when there is none."""
        known = git(self.work, "for-each-ref", "--format=%(refname)", f"refs/heads/{branch}")
        git(self.work, "checkout", "--quiet", *([branch] if known else ["-b", branch, "master"]))

    def drop_last(self, branch: str) -> None:
        """Take the last commit of a branch back, here; the next push is a forced one."""
        self._check_out(branch)
        git(self.work, "reset", "--quiet", "--hard", "HEAD~1")

    def push(self, branch: str) -> str:
        """Push a branch as a person does and return what the hook told them. Raises CalledProcessError."""
        done = subprocess.run(
            ["git", "push", "--quiet", "--force", "origin", f"refs/heads/{branch}:refs/heads/{branch}"],
            cwd=self.work, capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        return done.stderr

    def push_as(self, sha: str, branches: Iterable[str]) -> None:
        """Push one commit under many branch names at once."""
        git(self.work, "push", "--quiet", "origin", *(f"{sha}:refs/heads/{branch}" for branch in branches))

    def delete(self, branches: Iterable[str]) -> None:
        """Delete branches of the bare repository."""
        git(self.work, "push", "--quiet", "origin", *(f":refs/heads/{branch}" for branch in branches))
