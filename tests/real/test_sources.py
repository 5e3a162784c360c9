"""Where code comes from: git with its submodules, files of Git LFS, and Subversion in a step (R13)."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.real.parts import need
from tests.real.several import Several
from tests.tools.repositories import ENVIRONMENT, bare, commit, git

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Several]:
    """A master that lets its project have submodules from one folder, and two agents."""
    place = tmp_path_factory.mktemp("sources")
    found = Several(place, {"submodules": [str(place / "libraries")]}, linux=("linux",), gpu=("gpu",))
    try:
        yield found.start()
    finally:
        found.close()


def working(home: Path, place: Path, *arguments: str) -> None:
    """Run git in a working tree, with the settings of a person that has Git LFS."""
    env = {**ENVIRONMENT, "HOME": str(home), "GIT_CONFIG_GLOBAL": str(home / "gitconfig")}
    done = subprocess.run(["git", "-C", str(place), *arguments], env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


LFS = """\
flows:
  flow:
    on: manual
    checkout: {lfs: true}
    jobs:
      first: {labels: linux, steps: [run: sha256sum -c sums]}
      second: {needs: first, labels: gpu, steps: [run: sha256sum -c sums && test -x tool.bin]}
  plain: {on: manual, steps: [run: grep -q git-lfs.github.com big.bin]}
"""


def test_r13_files_that_git_lfs_pushed_are_in_the_checkout_of_a_flow_that_asks(one: Several, tmp_path: Path) -> None:
    """The real `git-lfs` makes the repository; neither master nor agent runs it."""
    need("git-lfs")
    tree = tmp_path / "tree"
    working(tmp_path, tmp_path, "lfs", "install", "--skip-repo")
    working(tmp_path, tmp_path, "clone", "-q", f"file://{one.repository}", str(tree))
    working(tmp_path, tree, "lfs", "track", "*.bin")
    (tree / "big.bin").write_bytes(os.urandom(9_000_000))
    (tree / "tool.bin").write_bytes(os.urandom(3000))
    (tree / "tool.bin").chmod(0o755)
    sums = subprocess.run(["sha256sum", "big.bin", "tool.bin"], cwd=tree, capture_output=True, check=True)
    (tree / "sums").write_bytes(sums.stdout)
    working(tmp_path, tree, "add", ".")
    working(tmp_path, tree, "commit", "-qm", "large")
    working(tmp_path, tree, "push", "-q", "origin", "HEAD:master")
    for _ in range(2):  # the second time from what the agent has kept
        run = one.run(LFS)
        assert run["state"] == "succeeded", one.log(run["number"])
    run = one.ended(one.begin(LFS, flow="plain"))
    assert run["state"] == "succeeded", one.log(run["number"])
    kept = {path.stat().st_size for path in (one.master.home / "lfs").rglob("*") if path.is_file()}
    assert kept == {9_000_000, 3000}


MODULES = """\
flows:
  flow:
    on: manual
    checkout: {submodules: recursive}
    jobs:
      first: {labels: linux, steps: [run: "cat third/lib/file third/lib/inner/file; test ! -e third/lib/.git"]}
      second: {needs: first, labels: gpu, steps: [run: cat third/lib/file third/lib/inner/file]}
  flat:
    on: manual
    checkout: {submodules: true}
    steps: [run: "cat third/lib/file; test -z \\"$(ls third/lib/inner)\\""]
  none: {on: manual, labels: [linux], steps: [run: "test -d third/lib && test -z \\"$(ls -A third/lib)\\""]}
"""


def with_module(repository: Path, files: dict[str, str | bytes | None], path: str, url: str, sha: str) -> None:
    """Commit files and a submodule."""
    said = f'[submodule "{path}"]\n\tpath = {path}\n\turl = {url}\n'
    commit(repository, {**files, ".gitmodules": said})
    index = {"GIT_INDEX_FILE": str(repository / "test.index")}
    git(repository, "update-index", "--add", "--cacheinfo", f"160000,{sha},{path}", **index)
    made = git(repository, "commit-tree", git(repository, "write-tree", **index), "-p", "master", data=b"x")
    git(repository, "update-ref", "refs/heads/master", made)


def test_r13_submodules_are_in_the_checkout_of_a_flow_that_asks_and_gone_from_the_next_one(one: Several) -> None:
    inner, lib = bare(one.place / "libraries" / "inner.git"), bare(one.place / "libraries" / "lib.git")
    deep = commit(inner, {"file": "deep\n"})
    with_module(lib, {"file": "wide\n"}, "inner", "../inner.git", deep)
    sha = git(lib, "rev-parse", "master")
    with_module(one.repository, {".keepflow.yml": MODULES}, "third/lib", "../libraries/lib.git", sha)
    for flow, said in (("flow", "\nwide\ndeep\n"), ("flat", "\nwide\n"), ("none", "\n")):
        reply = one.master.api("POST", "/projects/shop/runs", {"flow": flow, "ref": "master"})
        run = one.ended(int(reply.json["run"]))
        assert run["state"] == "succeeded", one.log(run["number"])
        assert said in one.log(run["number"])


def test_a_submodule_from_an_address_that_nobody_allowed_fails_the_job_with_the_line_to_write(one: Several) -> None:
    evil = bare(one.place / "evil.git")
    sha = commit(evil, {"file": "evil\n"})
    with_module(one.repository, {".keepflow.yml": MODULES}, "evil", f"file://{evil}", sha)
    reply = one.master.api("POST", "/projects/shop/runs", {"flow": "flat", "ref": "master"})
    run = one.ended(int(reply.json["run"]))
    [job] = run["jobs"].values()
    assert (job["state"], job["reason_code"]) == ("failed", "no-submodule"), one.log(run["number"])
    assert "under projects.shop.submodules into keepflow.yml" in job["reason"]


def test_r13_subversion_is_a_step_of_a_flow(one: Several, tmp_path: Path) -> None:
    need("svn", "svnadmin")
    repository, tree = tmp_path / "svn", tmp_path / "tree"
    subprocess.run(["svnadmin", "create", str(repository)], check=True)
    tree.mkdir()
    (tree / "file").write_text("from subversion\n")
    subprocess.run(["svn", "import", "-q", "-m", "x", str(tree), f"file://{repository}"], check=True)
    text = (
        f"flows: {{flow: {{on: manual, steps: [run: svn checkout -q file://{repository} code, run: cat code/file]}}}}\n"
    )
    git(one.repository, "update-ref", "-d", "refs/heads/master")
    run = one.run(text)
    assert run["state"] == "succeeded", one.log(run["number"])
    assert "\nfrom subversion\n" in one.log(run["number"])
