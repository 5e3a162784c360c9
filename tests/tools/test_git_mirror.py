"""The master's mirror, on real repositories, with hostile names and contents."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest

from keepflow import errors
from keepflow.tools.git import Mirror, Remote, check_version, init_bare, ls_remote
from tests.hostile import CANARY, NAMES, URLS
from tests.tools.repositories import bare, commit, git
from tests.tools.smart_http import serve


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    return bare(tmp_path / "origin.git")


@pytest.fixture
def remote(origin: Path) -> Remote:
    return Remote(str(origin), allow_local=True)


@pytest.fixture
def mirror(tmp_path: Path) -> Mirror:
    init_bare(tmp_path / "mirror.git")
    return Mirror(tmp_path / "mirror.git")


def test_a_fetch_brings_every_branch_and_tag(mirror: Mirror, remote: Remote, origin: Path) -> None:
    first = commit(origin, {"a": "1"})
    second = commit(origin, {"a": "2"}, ref="dev")
    git(origin, "tag", "light", first)
    git(origin, "tag", "-a", "-m", "annotated", "v1", second)
    mirror.fetch(remote)
    everything = {
        "refs/heads/master": first,
        "refs/heads/dev": second,
        "refs/tags/light": first,
        "refs/tags/v1": second,
    }
    assert mirror.heads() == everything
    assert ls_remote(remote) == everything
    assert mirror.resolve("refs/tags/v1") == second
    assert mirror.has(first)


def test_an_empty_remote_is_an_empty_mirror(mirror: Mirror, remote: Remote) -> None:
    mirror.fetch(remote)
    assert mirror.heads() == {}
    assert ls_remote(remote) == {}
    assert mirror.resolve("refs/heads/master") is None


def test_a_force_push_moves_the_branch_and_keeps_the_old_commit(mirror: Mirror, remote: Remote, origin: Path) -> None:
    old = commit(origin, {"a": "1"})
    mirror.fetch(remote)
    git(origin, "update-ref", "-d", "refs/heads/master")
    new = commit(origin, {"b": "1"})
    mirror.fetch(remote)
    mirror.tidy()
    assert mirror.resolve("refs/heads/master") == new
    assert mirror.has(old)


def test_a_deleted_branch_is_pruned_and_its_name_can_become_a_directory(
    mirror: Mirror, remote: Remote, origin: Path
) -> None:
    sha = commit(origin, {"a": "1"}, ref="topic")
    mirror.fetch(remote)
    git(origin, "update-ref", "-d", "refs/heads/topic")
    git(origin, "update-ref", "refs/heads/topic/deeper", sha)
    mirror.fetch(remote)
    assert mirror.heads() == {"refs/heads/topic/deeper": sha}


def test_a_lock_left_by_a_killed_git_does_not_stop_the_next_fetch(mirror: Mirror, remote: Remote, origin: Path) -> None:
    commit(origin, {"a": "1"})
    mirror.fetch(remote)
    sha = commit(origin, {"a": "2"})
    lock = mirror.path / "refs" / "heads" / "master.lock"
    lock.write_text("")
    with pytest.raises(errors.CommandFailed, match=r"master\.lock"):  # it may belong to a git that lives
        mirror.fetch(remote)
    os.utime(lock, (0, 0))
    mirror.fetch(remote)
    assert mirror.resolve("refs/heads/master") == sha


def test_a_pull_request_ref_is_fetched_alone_and_survives_pruning(mirror: Mirror, remote: Remote, origin: Path) -> None:
    commit(origin, {"a": "1"})
    proposed = commit(origin, {"a": "2"}, ref="fork")
    git(origin, "update-ref", "refs/pull/7/head", proposed)
    git(origin, "update-ref", "-d", "refs/heads/fork")
    mirror.fetch_ref(remote, "refs/pull/7/head")
    mirror.fetch(remote)
    assert mirror.resolve("refs/pull/7/head") == proposed


def test_a_file_is_read_at_its_commit(mirror: Mirror, remote: Remote, origin: Path) -> None:
    old = commit(origin, {".keepflow.yml": "version: 1\n", "dir/with space": b"\0\n\xff"})
    new = commit(origin, {".keepflow.yml": "version: 2\n"})
    mirror.fetch(remote)
    assert mirror.read_file(old, ".keepflow.yml", 1000) == b"version: 1\n"
    assert mirror.read_file(new, ".keepflow.yml", 1000) == b"version: 2\n"
    assert mirror.read_file(new, "dir/with space", 1000) == b"\0\n\xff"
    assert mirror.read_file(new, "absent", 1000) is None
    assert mirror.read_file(new, "dir", 1000) is None
    assert mirror.read_file(new, "absent missing", 1000) is None


def test_a_file_past_the_limit_is_refused_and_one_at_the_limit_is_not(
    mirror: Mirror, remote: Remote, origin: Path
) -> None:
    sha = commit(origin, {"exact": b"x" * 1000, "more": b"x" * 1001, "huge": b"x" * 3_000_000})
    mirror.fetch(remote)
    assert len(mirror.read_file(sha, "exact", 1000) or b"") == 1000
    for path in ("more", "huge"):
        with pytest.raises(errors.TooLarge):
            mirror.read_file(sha, path, 1000)


def test_a_missing_commit_is_not_mistaken_for_a_missing_file(mirror: Mirror) -> None:
    with pytest.raises(errors.NotFound, match="force push"):
        mirror.read_file("0" * 40, ".keepflow.yml", 1000)
    assert not mirror.has("0" * 40)


@pytest.mark.parametrize(
    "path", ["", "a\nb", "a\0b", "../../../etc/passwd", "./a", "a/../b", "/etc/passwd", "a//b", "a/"]
)
def test_a_path_that_git_would_read_as_something_else_is_refused(mirror: Mirror, path: str) -> None:
    with pytest.raises(errors.UsageError):
        mirror.read_file("0" * 40, path, 1000)


@pytest.mark.parametrize("path", ["--help", ":/change", "HEAD", "file^{}", "file:0", "*", "a b c", "ü"])
def test_a_strange_path_is_only_the_name_of_a_file(mirror: Mirror, remote: Remote, origin: Path, path: str) -> None:
    sha = commit(origin, {"file": "x"})
    mirror.fetch(remote)
    assert mirror.read_file(sha, path, 1000) is None


def test_the_log_between_two_commits_is_newest_first(mirror: Mirror, remote: Remote, origin: Path) -> None:
    base = commit(origin, {"a": "1"}, "first")
    commit(origin, {"a": "2"}, "second <b>&\x1b[31m\n\nbody")
    head = commit(origin, {"a": "3"}, "third")
    mirror.fetch(remote)
    found = mirror.log(base, head, 10)
    assert [entry.subject for entry in found] == ["third", "second <b>&\x1b[31m"]
    assert (found[0].sha, found[0].author, found[0].at) == (head, "Ann", 1_709_208_000_000_000)
    assert [entry.subject for entry in mirror.log(None, head, 2)] == ["third", "second <b>&\x1b[31m"]
    assert mirror.log(head, head, 10) == []


def test_a_log_of_absent_commits_is_an_intentional_error(mirror: Mirror) -> None:
    with pytest.raises(errors.NotFound):
        mirror.log("0" * 40, "1" * 40, 10)


def test_ancestry_is_told_and_absent_commits_are_errors(mirror: Mirror, remote: Remote, origin: Path) -> None:
    first, second = commit(origin, {"a": "1"}), commit(origin, {"a": "2"})
    mirror.fetch(remote)
    assert mirror.is_ancestor(first, second)
    assert not mirror.is_ancestor(second, first)
    with pytest.raises(errors.CommandFailed):
        mirror.is_ancestor(first, "0" * 40)


def test_hostile_branch_names_are_only_names(mirror: Mirror, remote: Remote, origin: Path, tmp_path: Path) -> None:
    sha = commit(origin, {"a": "1"})
    lines = "".join(f"create refs/heads/{name}\0{sha}\0" for name in NAMES)
    git(origin, "update-ref", "--stdin", "-z", data=lines.encode())
    mirror.fetch(remote)
    expected = {f"refs/heads/{name}": sha for name in (*NAMES, "master")}
    assert mirror.heads() == expected
    assert ls_remote(remote) == expected
    for name in NAMES:
        assert mirror.resolve(f"refs/heads/{name}") == sha
        mirror.fetch_ref(remote, f"refs/heads/{name}")
    assert not Path(CANARY).exists()
    assert {entry.name for entry in tmp_path.iterdir()} == {"origin.git", "mirror.git"}


@pytest.mark.parametrize("url", URLS)
def test_no_git_process_is_started_for_a_hostile_address(
    mirror: Mirror, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr("keepflow.tools.processes.run", never)
    for act in (mirror.fetch, ls_remote, lambda remote: mirror.fetch_ref(remote, "refs/heads/x")):
        with pytest.raises(errors.BadRemote):
            act(Remote(url))


def test_a_local_remote_is_refused_unless_allowed(mirror: Mirror, origin: Path) -> None:
    with pytest.raises(errors.BadRemote):
        mirror.fetch(Remote(str(origin)))


def test_an_unreachable_remote_tells_what_git_said(mirror: Mirror, tmp_path: Path) -> None:
    with pytest.raises(errors.CommandFailed, match="does not appear to be a git repository"):
        mirror.fetch(Remote(str(tmp_path / "nothing"), allow_local=True))


def test_a_broken_object_is_not_taken_in(mirror: Mirror, remote: Remote, origin: Path) -> None:
    """An entry named .git in a tree is how CVE-2014-9390 and its kin begin."""
    good = commit(origin, {"a": "1"})
    blob = git(origin, "hash-object", "-w", "--stdin", data=b"x")
    evil = git(origin, "mktree", data=f"100644 blob {blob}\t.git\n".encode())
    sha = git(origin, "commit-tree", evil, data=b"evil")
    git(origin, "update-ref", "refs/heads/evil", sha)
    with pytest.raises(errors.CommandFailed, match="hasDotgit"):
        mirror.fetch(remote)
    git(origin, "update-ref", "-d", "refs/heads/evil")
    mirror.fetch(remote)
    assert mirror.resolve("refs/heads/master") == good


def test_a_token_goes_as_a_header_to_its_own_host_and_nowhere_else(mirror: Mirror, origin: Path) -> None:
    sha = commit(origin, {"a": "1"})
    basic = "Basic " + base64.b64encode(b"x-access-token:s3cr3t-token").decode()
    with serve(origin, expects=basic) as server:
        remote = Remote(server.url, token="s3cr3t-token")
        assert ls_remote(remote) == {"refs/heads/master": sha}
        mirror.fetch(remote)
        assert set(server.authorizations) == {basic}
        with pytest.raises(errors.CommandFailed) as caught:
            mirror.fetch(Remote(server.url, token="wrong-token"))
    assert "wrong-token" not in str(caught.value)
    assert "s3cr3t" not in repr(remote)
    assert b"s3cr3t" not in (mirror.path / "config").read_bytes()


def test_a_token_may_be_a_user_and_a_password(mirror: Mirror, origin: Path) -> None:
    commit(origin, {"a": "1"})
    with serve(origin, expects="Basic " + base64.b64encode(b"ann:pass word").decode()) as server:
        mirror.fetch(Remote(server.url, token="ann:pass word"))


def test_cve_2020_5260_no_credential_follows_a_redirect(mirror: Mirror, origin: Path) -> None:
    commit(origin, {"a": "1"})
    with serve(origin) as thief, serve(origin, redirect_to=thief.url.removesuffix("/repo.git")) as server:
        with pytest.raises(errors.CommandFailed):
            mirror.fetch(Remote(server.url, token="s3cr3t-token"))
        assert thief.requests == []
        assert len(server.requests) == 1


def test_no_credential_of_the_account_is_ever_offered(
    mirror: Mirror, origin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    helper = tmp_path / "helper"
    helper.write_text(f"#!/bin/sh\ntouch {CANARY}\necho password=x\n")
    helper.chmod(0o755)
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login ann password hunter22\n")
    (tmp_path / ".gitconfig").write_text(f"[credential]\nhelper={helper}\n[core]\naskPass={helper}\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GIT_ASKPASS", str(helper))
    monkeypatch.setenv("SSH_ASKPASS", str(helper))
    commit(origin, {"a": "1"})
    with serve(origin, expects="Basic never") as server, pytest.raises(errors.CommandFailed):
        mirror.fetch(Remote(server.url))
    assert set(server.authorizations) == {None}
    assert not Path(CANARY).exists()


def test_an_ssh_remote_needs_a_key_and_pinned_hosts() -> None:
    with pytest.raises(errors.BadRemote, match="known_hosts"):
        ls_remote(Remote("git@git.example.org:x.git"))


def test_the_ssh_command_is_strict_and_reads_no_other_configuration() -> None:
    remote = Remote("git@h.example:x.git", ssh_key_file=Path("/k/id"), known_hosts_file=Path("/k/hosts"))
    command = remote.environment()["GIT_SSH_COMMAND"]
    for part in (
        "-F /dev/null",
        "-i /k/id",
        "StrictHostKeyChecking=yes",
        "UserKnownHostsFile=/k/hosts",
        "GlobalKnownHostsFile=/dev/null",
        "BatchMode=yes",
        "ForwardAgent=no",
    ):
        assert part in command
    assert remote.environment()["GIT_ALLOW_PROTOCOL"] == "ssh"


def test_a_key_file_that_ssh_could_misread_is_refused() -> None:
    remote = Remote("git@h.example:x.git", ssh_key_file=Path("/k/-o a"), known_hosts_file=Path("/k/hosts"))
    with pytest.raises(errors.BadRemote, match="ssh key file"):
        remote.environment()


def test_this_machine_has_a_git_that_is_new_enough() -> None:
    assert check_version().count(".") >= 1


def test_an_old_git_is_refused_with_both_versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "git").write_text("#!/bin/sh\necho git version 2.20.1\n")
    (tmp_path / "git").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(errors.ProgramMissing, match=r"2\.34 or newer.*2\.20\.1"):
        check_version()
