"""An agent's lane: exactly the commit's files, whatever the last job or the repository did."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from keepflow import errors
from keepflow.tools.git import Lane, Mirror, Remote, init_bare
from tests.hostile import CANARY, URLS
from tests.tools.repositories import bare, commit, git
from tests.tools.smart_http import serve


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    return bare(tmp_path / "origin.git")


@pytest.fixture
def lane(tmp_path: Path) -> Lane:
    return Lane(tmp_path / "lane" / "git", tmp_path / "lane" / "work")


def move(lane: Lane, origin: Path, sha: str) -> None:
    lane.update(str(origin), sha, allow_local=True)
    lane.checkout(sha)


def files(lane: Lane) -> dict[str, str]:
    found = (path for path in lane.work_tree.rglob("*") if path.is_file() or path.is_symlink())
    return {str(path.relative_to(lane.work_tree)): path.read_text() for path in found}


def link_commit(origin: Path, name: str, target: str) -> str:
    blob = git(origin, "hash-object", "-w", "--stdin", data=target.encode())
    tree = git(origin, "mktree", data=f"120000 blob {blob}\t{name}\n".encode())
    return git(origin, "commit-tree", tree, data=b"link")


def test_a_lane_moves_from_commit_to_commit(lane: Lane, origin: Path) -> None:
    first = commit(origin, {"a": "1", "dir/b": "1"})
    second = commit(origin, {"a": "2", "dir/b": None, "c": "2"})
    move(lane, origin, first)
    assert files(lane) == {"a": "1", "dir/b": "1"}
    move(lane, origin, second)
    assert files(lane) == {"a": "2", "c": "2"}
    move(lane, origin, first)
    assert files(lane) == {"a": "1", "dir/b": "1"}


def test_the_git_directory_is_not_in_the_working_tree(lane: Lane, origin: Path) -> None:
    move(lane, origin, commit(origin, {"a": "1"}))
    assert [entry.name for entry in lane.work_tree.iterdir()] == ["a"]


def test_a_commit_no_branch_points_to_is_fetched_by_its_id(lane: Lane, origin: Path) -> None:
    sha = commit(origin, {"a": "1"})
    git(origin, "update-ref", "-d", "refs/heads/master")
    move(lane, origin, sha)
    assert files(lane) == {"a": "1"}


def test_only_one_commit_is_fetched_and_only_what_changed(lane: Lane, origin: Path) -> None:
    big = os.urandom(300_000)
    for n in range(5):
        first = commit(origin, {"big": big, "history": os.urandom(100_000), "n": str(n)})
    with serve(origin) as server:
        lane.update(server.url, first)
        fresh = server.fetched_bytes
        second = commit(origin, {"n": "last"})
        lane.update(server.url, second)
        delta = server.fetched_bytes - fresh
        requests = len(server.requests)
        lane.update(server.url, second)
        assert len(server.requests) == requests
    assert 400_000 < fresh < 500_000
    assert delta < 5_000
    assert git(lane.git_dir, "rev-list", "--count", "refs/keepflow/current") == "1"


def test_the_job_credential_is_a_header_for_this_fetch_only(lane: Lane, origin: Path) -> None:
    sha = commit(origin, {"a": "1"})
    with serve(origin, expects="Bearer kf_job_x") as server:
        with pytest.raises(errors.CommandFailed):
            lane.update(server.url, sha)
        lane.update(server.url, sha, "Authorization: Bearer kf_job_x")
    lane.checkout(sha)
    for path in lane.git_dir.rglob("*"):
        assert path.is_dir() or b"kf_job_x" not in path.read_bytes()


def test_a_header_of_two_lines_is_refused(lane: Lane) -> None:
    with pytest.raises(errors.UsageError, match="one printable line"):
        lane.update("http://127.0.0.1:1/x", "0" * 40, "Authorization: x\r\nHost: y")


def test_what_a_mirror_serves_a_lane_can_fetch(lane: Lane, origin: Path, tmp_path: Path) -> None:
    sha = commit(origin, {"a": "1"}, ref="gone")
    init_bare(tmp_path / "mirror")
    mirror = Mirror(tmp_path / "mirror")
    mirror.fetch(Remote(str(origin), allow_local=True))
    git(origin, "update-ref", "-d", "refs/heads/gone")
    mirror.fetch(Remote(str(origin), allow_local=True))
    with serve(mirror.path) as server:
        lane.update(server.url, sha)
    lane.checkout(sha)
    assert files(lane) == {"a": "1"}


@pytest.mark.parametrize("url", URLS)
def test_a_lane_refuses_hostile_addresses(lane: Lane, url: str) -> None:
    with pytest.raises(errors.BadRemote):
        lane.update(url, "0" * 40)
    assert not lane.git_dir.exists()


def test_changed_ignored_and_untracked_files_are_gone(lane: Lane, origin: Path) -> None:
    sha = commit(origin, {"a": "1", "kept/b": "1", ".gitignore": "*.o\nbuild/\n"})
    move(lane, origin, sha)
    work = lane.work_tree
    before = (work / "a").stat()
    (work / "a").write_text("9")
    os.utime(work / "a", ns=(before.st_atime_ns, before.st_mtime_ns))
    (work / "kept" / "b").unlink()
    (work / "x.o").write_text("x")
    (work / "build" / "deep").mkdir(parents=True)
    (work / "empty").mkdir()
    (work / "link").symlink_to("/etc")
    move(lane, origin, sha)
    assert files(lane) == {"a": "1", "kept/b": "1", ".gitignore": "*.o\nbuild/\n"}
    assert sorted(entry.name for entry in work.iterdir()) == [".gitignore", "a", "kept"]


def test_repositories_a_job_planted_are_gone(lane: Lane, origin: Path) -> None:
    sha = commit(origin, {"a": "1", "kept/b": "1"})
    move(lane, origin, sha)
    work = lane.work_tree
    for place in (work, work / "kept", work / "own"):
        place.mkdir(exist_ok=True)
        git(place, "init", "--quiet", ".")
        (place / ".git" / "hooks" / "post-checkout").write_text(f"#!/bin/sh\ntouch {CANARY}\n")
        (place / ".git" / "hooks" / "post-checkout").chmod(0o755)
        git(place, "config", "core.fsmonitor", f"touch {CANARY}")
    move(lane, origin, sha)
    assert not list(work.rglob(".git"))
    assert not Path(CANARY).exists()
    (work / ".git").write_text("gitdir: /nowhere\n")
    (work / "kept" / ".GIT").symlink_to(origin)
    move(lane, origin, sha)
    assert (origin / "HEAD").exists()
    assert not (work / "kept" / ".GIT").is_symlink()
    assert files(lane) == {"a": "1", "kept/b": "1"}


@pytest.fixture
def unprivileged() -> Iterator[Path]:
    """A directory of an account for which file modes count; root would pass every permission test."""
    home, nobody, root = Path(tempfile.mkdtemp()), 65534, os.getuid() == 0
    if root:
        os.chown(home, nobody, nobody)
        os.setresgid(nobody, nobody, 0)
        os.setresuid(nobody, nobody, 0)
    try:
        yield home
    finally:
        if root:
            os.setresuid(0, 0, 0)
            os.setresgid(0, 0, 0)
        subprocess.run(["chmod", "-R", "u+rwx", home], check=True)
        shutil.rmtree(home)


def test_read_only_directories_a_build_tool_left_are_gone(unprivileged: Path) -> None:
    origin, lane = bare(unprivileged / "origin"), Lane(unprivileged / "git", unprivileged / "work")
    sha = commit(origin, {"a": "1"})
    move(lane, origin, sha)
    cache = lane.work_tree / "cache" / "module"
    cache.mkdir(parents=True)
    (cache / "file").write_text("x")
    cache.chmod(0o000)
    cache.parent.chmod(0o555)
    with pytest.raises(PermissionError):
        (cache / "file").unlink()
    move(lane, origin, sha)
    assert files(lane) == {"a": "1"}
    cache.mkdir(parents=True)
    cache.parent.chmod(0o555)
    lane.discard()
    assert not lane.work_tree.exists()


def test_a_tracked_directory_replaced_by_a_link_writes_nothing_outside(
    lane: Lane, origin: Path, tmp_path: Path
) -> None:
    """CVE-2021-21300 and its kin: a link in the way of a checkout."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "b").write_text("mine")
    sha = commit(origin, {"dir/b": "1"})
    move(lane, origin, sha)
    (lane.work_tree / "dir" / "b").unlink()
    (lane.work_tree / "dir").rmdir()
    (lane.work_tree / "dir").symlink_to(outside)
    move(lane, origin, sha)
    assert (outside / "b").read_text() == "mine"
    assert not (lane.work_tree / "dir").is_symlink()
    assert files(lane) == {"dir/b": "1"}


def test_discarding_a_lane_follows_no_link(lane: Lane, origin: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("mine")
    sha = commit(origin, {"a": "1"})
    move(lane, origin, sha)
    (lane.work_tree / "link").symlink_to(outside)
    lane.discard()
    assert (outside / "file").read_text() == "mine"
    assert not lane.work_tree.exists()
    assert not lane.git_dir.exists()
    lane.discard()
    move(lane, origin, sha)
    assert files(lane) == {"a": "1"}


def test_locks_left_by_a_killed_process_do_not_stop_the_next_run(lane: Lane, origin: Path) -> None:
    move(lane, origin, commit(origin, {"a": "1"}))
    sha = commit(origin, {"a": "2"})
    for lock in ("index.lock", "HEAD.lock", "shallow.lock", "config.lock", "refs/keepflow/current.lock"):
        (lane.git_dir / lock).write_text("")
    move(lane, origin, sha)
    assert files(lane) == {"a": "2"}


def test_many_moves_leave_a_lane_that_still_works_and_tidying_shrinks_it(lane: Lane, origin: Path) -> None:
    for n in range(12):
        sha = commit(origin, {"a": os.urandom(20_000), "n": str(n)})
        move(lane, origin, sha)
    before = sum(path.stat().st_size for path in lane.git_dir.rglob("*") if path.is_file())
    lane.tidy()
    after = sum(path.stat().st_size for path in lane.git_dir.rglob("*") if path.is_file())
    assert after < before / 3
    move(lane, origin, commit(origin, {"n": "last"}))
    assert (lane.work_tree / "n").read_text() == "last"


# --- evil repositories (T9) -----------------------------------------------------------------------------------------


def test_cve_2018_11235_submodules_are_never_entered(lane: Lane, origin: Path, tmp_path: Path) -> None:
    inner = bare(tmp_path / "inner.git")
    target = commit(inner, {"x": "1"})
    modules = f'[submodule "../../evil"]\n path = sub\n url = {inner}\n[submodule "u"]\n path = u\n url = -u./payload\n'
    blob = git(origin, "hash-object", "-w", "--stdin", data=b"1")
    listing = git(origin, "hash-object", "-w", "--stdin", data=modules.encode())
    tree = git(
        origin,
        "mktree",
        "--missing",
        data=f"100644 blob {listing}\t.gitmodules\n160000 commit {target}\tsub\n100644 blob {blob}\tz\n".encode(),
    )
    sha = git(origin, "commit-tree", tree, data=b"evil")
    with pytest.raises(errors.CommandFailed, match="gitmodules"):
        move(lane, origin, sha)
    assert not (lane.work_tree / "sub").exists()


def test_cve_2025_48384_a_submodule_path_with_a_carriage_return_is_never_entered(
    lane: Lane, origin: Path, tmp_path: Path
) -> None:
    inner = bare(tmp_path / "inner.git")
    target = commit(inner, {"post-checkout": f"#!/bin/sh\ntouch {CANARY}\n"})
    modules = f'[submodule "sub"]\n path = "sub\r"\n url = {inner}\n'
    listing = git(origin, "hash-object", "-w", "--stdin", data=modules.encode())
    tree = git(
        origin,
        "mktree",
        "--missing",
        "-z",
        data=f"100644 blob {listing}\t.gitmodules\x00160000 commit {target}\tsub\r\x00".encode(),
    )
    sha = git(origin, "commit-tree", tree, data=b"evil")
    move(lane, origin, sha)
    assert not Path(CANARY).exists()
    assert not list(lane.work_tree.glob("sub*/*"))
    assert not (lane.git_dir / "modules").exists()


def test_cve_2019_19604_submodule_update_commands_never_run(lane: Lane, origin: Path) -> None:
    modules = f'[submodule "s"]\n path = s\n url = https://h/x\n update = !touch {CANARY}\n'
    sha = commit(origin, {".gitmodules": modules, "s": "x"})
    with pytest.raises(errors.CommandFailed, match="gitmodulesUpdate"):
        move(lane, origin, sha)
    assert not Path(CANARY).exists()


def test_attributes_and_configuration_in_a_repository_run_nothing(lane: Lane, origin: Path) -> None:
    attributes = "* filter=evil diff=evil merge=evil textconv=evil\n*.x ident\n"
    config = f'[filter "evil"]\nsmudge = touch {CANARY}\n[core]\nfsmonitor = touch {CANARY}\n'
    sha = commit(
        origin, {".gitattributes": attributes, ".gitconfig": config, ".git-hooks/post-checkout": "x", "a": "1"}
    )
    move(lane, origin, sha)
    assert not Path(CANARY).exists()
    assert files(lane)["a"] == "1"


def test_a_repository_that_is_itself_shaped_like_a_git_directory_runs_nothing(lane: Lane, origin: Path) -> None:
    """An embedded bare repository (safe.bareRepository) must stay plain files."""
    config = f"[core]\nrepositoryformatversion = 0\nbare = true\nfsmonitor = touch {CANARY}\n"
    embedded = {"HEAD": "ref: refs/heads/x\n", "config": config, "objects/x": "", "refs/x": ""}
    move(lane, origin, commit(origin, embedded))
    move(lane, origin, commit(origin, {"a": "1"}))
    assert not Path(CANARY).exists()


@pytest.mark.parametrize("name", [".git", ".GIT", ".git\u200c", "git~1", ".git::$INDEX_ALLOCATION", "..", "."])
def test_a_tree_that_names_a_git_directory_is_refused(lane: Lane, origin: Path, name: str) -> None:
    blob = git(origin, "hash-object", "-w", "--stdin", data=b"x")
    inner = git(origin, "mktree", data=f"100644 blob {blob}\tconfig\n".encode())
    tree = git(origin, "mktree", data=f"040000 tree {inner}\t{name}\n".encode())
    sha = git(origin, "commit-tree", tree, data=b"evil")
    with pytest.raises(errors.CommandFailed):
        move(lane, origin, sha)
    assert not lane.work_tree.exists() or list(lane.work_tree.iterdir()) == []


def test_a_link_to_the_outside_stays_a_link(lane: Lane, origin: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("mine")
    move(lane, origin, link_commit(origin, "x", str(tmp_path / "secret")))
    move(lane, origin, commit(origin, {"x": "file now"}))
    assert (tmp_path / "secret").read_text() == "mine"
    assert files(lane) == {"x": "file now"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a tree to another account")
def test_an_index_that_a_power_cut_left_empty_fails_and_never_passes_for_one(origin: Path) -> None:
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        lane = Lane(Path(place) / "git", Path(place) / "work", (65534, 65534))
        sha = commit(origin, {"a": "1", "b": "2"})
        move(lane, origin, sha)
        (lane.git_dir / "index").write_bytes(b"")
        (lane.work_tree / "a").write_text("of a job")
        with pytest.raises(errors.CommandFailed):  # whoever holds the lane begins it afresh
            lane.checkout(sha)


def test_what_a_job_left_in_the_place_of_a_submodule_is_gone_for_the_next_one(
    lane: Lane, origin: Path, tmp_path: Path
) -> None:
    """Git itself neither looks nor cleans there."""
    commit(origin, {"file": "1"})
    index = {"GIT_INDEX_FILE": str(origin / "test.index")}
    git(origin, "update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},deep/lib", **index)
    sha = git(origin, "commit-tree", git(origin, "write-tree", **index), "-p", "master", data=b"x")
    git(origin, "update-ref", "refs/heads/master", sha)
    for _ in range(2):
        lane.update(str(origin), sha, allow_local=True)
        lane.checkout(sha)
        place = lane.work_tree / "deep" / "lib"
        assert list(place.iterdir()) == []
        (place / "folder").mkdir()
        (place / "folder" / "leak").write_text("of the job before")
        (place / "folder").chmod(0o555)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("1")
    (place / "folder").chmod(0o755)
    for swapped in (place, place.parent):
        shutil.rmtree(swapped)
        swapped.symlink_to(outside)
        lane.checkout(sha)
        assert place.is_dir()
        assert not place.is_symlink()
        assert [path.name for path in outside.iterdir()] == ["kept"]
    assert lane.gitlinks(sha) == {"deep/lib": "1" * 40}
