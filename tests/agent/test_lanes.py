"""Lanes: kept, held by one, brought to a commit whatever was left in them, and never lost to a bad network."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from keepflow import errors
from keepflow.agent import untouched
from keepflow.agent.lanes import Lanes, Source
from keepflow.tools.git import Lane
from tests.real.waiting import wait_until
from tests.tools import smart_http
from tests.tools.repositories import bare, commit


@pytest.fixture
def lanes(tmp_path: Path) -> Lanes:
    return Lanes(tmp_path / "lanes")


def test_a_lane_is_kept_and_moved_to_the_next_commit(lanes: Lanes, tmp_path: Path) -> None:
    repository = bare(tmp_path / "repository")
    first = commit(repository, {"a": "1", "b": "1"})
    second = commit(repository, {"a": "2", "b": None})
    with smart_http.serve(repository, expects="Bearer job-token") as server:
        for sha, files in ((first, {"a": "1", "b": "1"}), (second, {"a": "2"}), (first, {"a": "1", "b": "1"})):
            with lanes.hold("shop", "protected") as place:
                tree = lanes.fill(place, Source(server.url, sha, "job-token"))
                assert {path.name: path.read_text() for path in tree.iterdir()} == files
                (tree / "left").write_text("x")
        assert place.name == "protected-1"
        assert (place / "git").stat().st_mode & 0o077 == 0
        before = len(server.requests)
        with lanes.hold("shop", "protected") as place:
            lanes.fill(place, Source(server.url, first, "job-token"))
        assert len(server.requests) == before, "a commit that is there is not fetched"


class Counting:
    """Counts how often git is asked to bring a tree to a commit."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.times, checkout = 0, Lane.checkout

        def counted(lane: Lane, sha: str, **how: bool) -> None:
            self.times += 1
            checkout(lane, sha, **how)

        patch.setattr(Lane, "checkout", counted)


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> Counting:
    return Counting(monkeypatch)


FILES: dict[str, str | bytes | None] = {"a": "1", "deep/b": "2", "deep/er/c": "3"}


def _fill(lanes: Lanes, source: Source) -> Path:
    with lanes.hold("shop", "protected") as place:
        return lanes.fill(place, source)


def _until_known(lanes: Lanes, source: Source, counting: Counting) -> Path:
    """Fill a lane again and again until git is not asked any more, which takes the clock of the files some ticks."""

    def known() -> Path | None:
        before = counting.times
        tree = _fill(lanes, source)
        return tree if counting.times == before else None

    found = wait_until(known, 30, "a lane that nobody touched is known")
    assert found is not None
    return found


def test_an_untouched_lane_needs_no_git(lanes: Lanes, tmp_path: Path, counting: Counting) -> None:
    repository = bare(tmp_path / "repository")
    first, second = commit(repository, FILES), commit(repository, {"a": "2"})
    with smart_http.serve(repository) as server:
        tree = _until_known(lanes, Source(server.url, first, "t"), counting)
        assert (tree / "a").read_text() == "1"
        assert (_fill(lanes, Source(server.url, second, "another token")) / "a").read_text() == "2"
        assert (_fill(lanes, Source(server.url, first, "t")) / "a").read_text() == "1", "another commit was between"


def test_a_lane_that_was_filled_otherwise_is_not_known(lanes: Lanes, tmp_path: Path, counting: Counting) -> None:
    repository = bare(tmp_path / "repository")
    sha = commit(repository, {"a": "1\n", ".gitattributes": "a text eol=crlf\n"})
    with smart_http.serve(repository) as server:
        tree = _until_known(lanes, Source(server.url, sha, "t"), counting)
        assert (tree / "a").read_bytes() == b"1\r\n"
        before = counting.times
        _fill(lanes, Source(server.url, sha, "t", plain=True))
        assert counting.times == before + 1


def _same_size_and_times(tree: Path) -> None:
    file = tree / "deep" / "b"
    before = file.stat()
    file.write_text("X")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def _a_link_instead(tree: Path) -> None:
    (tree / "a").unlink()
    (tree / "a").symlink_to("/etc/passwd")


def _added_and_gone(tree: Path) -> None:
    (tree / "deep" / "x").write_text("")
    (tree / "deep" / "x").unlink()


@pytest.mark.parametrize(
    "touch",
    [
        lambda tree: (tree / "a").write_text("X"),
        _same_size_and_times,
        lambda tree: (tree / "deep" / "er" / "new").write_text("left"),
        lambda tree: (tree / "empty").mkdir(),
        lambda tree: (tree / ".git").mkdir(),
        lambda tree: (tree / "a").chmod(0o755),
        lambda tree: (tree / "deep").chmod(0o700),
        lambda tree: (tree / "a").unlink(),
        lambda tree: (tree / "a").rename(tree / "z"),
        lambda tree: (tree / "other").hardlink_to(tree / "a"),
        _a_link_instead,
        _added_and_gone,
    ],
)
def test_whatever_a_job_touched_is_put_right(
    lanes: Lanes, tmp_path: Path, counting: Counting, touch: Callable[[Path], object]
) -> None:
    """Also what looks the same by size and time: one of the cases sets both back."""
    repository = bare(tmp_path / "repository")
    sha = commit(repository, FILES)
    with smart_http.serve(repository) as server:
        source = Source(server.url, sha, "t")
        tree = _until_known(lanes, source, counting)
        before = counting.times
        for again in (1, 2, 3):  # from the second time on nobody looks any more whether it was touched
            touch(tree)
            assert _fill(lanes, source) == tree
            assert counting.times == before + again
            found = {str(path.relative_to(tree)): path.read_text() for path in tree.rglob("*") if path.is_file()}
            assert found == FILES
            assert not [path for path in tree.rglob("*") if path.is_symlink() or path.name in (".git", "empty")]


def test_a_tree_that_changed_within_the_tick_of_the_look_proves_nothing(tmp_path: Path) -> None:
    tree, clock = tmp_path / "tree", tmp_path / "clock"
    tree.mkdir()
    clock.touch()

    def at_once() -> bool:
        (tree / "a").write_text("x")
        changed = (tree / "a").stat().st_ctime_ns
        found = untouched.look(tree, clock)
        if clock.stat().st_ctime_ns > changed:
            return False  # a tick came between: not what this is about
        assert found is None
        return True

    wait_until(at_once, 30, "a look within the tick of a change", every=0)
    assert wait_until(lambda: untouched.look(tree, clock), 30, "a look in a later tick")


def test_a_large_tree_is_left_to_git(tmp_path: Path) -> None:
    tree, clock = tmp_path / "tree", tmp_path / "clock"
    tree.mkdir()
    clock.touch()
    for number in range(2001):
        (tree / str(number)).touch()

    def a_tick_later() -> bool:
        os.utime(clock)
        return clock.stat().st_ctime_ns > tree.stat().st_ctime_ns

    wait_until(a_tick_later, 30, "the next tick")
    assert untouched.look(tree, clock) is None
    (tree / "0").unlink()
    assert wait_until(lambda: untouched.look(tree, clock), 30, "a tree of 2000 files is looked at")


def test_two_holders_never_have_the_same_lane(lanes: Lanes, tmp_path: Path) -> None:
    with lanes.hold("shop", "protected") as one, Lanes(tmp_path / "lanes").hold("shop", "protected") as other:
        assert [one.name, other.name] == ["protected-1", "protected-2"]
    with lanes.hold("shop", "protected") as again, lanes.hold("shop", "fork") as fork:
        assert [again.name, fork.name] == ["protected-1", "fork-1"]


def test_a_damaged_lane_is_begun_afresh(lanes: Lanes, tmp_path: Path) -> None:
    repository = bare(tmp_path / "repository")
    sha = commit(repository, {"a": "1"})
    with smart_http.serve(repository) as server, lanes.hold("shop", "protected") as place:
        lanes.fill(place, Source(server.url, sha, "t"))
        for pack in (place / "git" / "objects").rglob("*"):
            if pack.is_file():
                pack.chmod(0o600)
                pack.write_bytes(b"power cut")
        (place / "work" / "a").unlink()
        assert (lanes.fill(place, Source(server.url, sha, "t")) / "a").read_text() == "1"
        assert sorted(path.name for path in place.iterdir()) == ["git", "lock", "work"]


def test_a_network_that_is_down_costs_no_kept_checkout(lanes: Lanes, tmp_path: Path) -> None:
    repository = bare(tmp_path / "repository")
    first, second = commit(repository, {"a": "1"}), commit(repository, {"a": "2"})
    with lanes.hold("shop", "protected") as place:
        with smart_http.serve(repository) as server:
            lanes.fill(place, Source(server.url, first, "t"))
        with pytest.raises(errors.CommandFailed):
            lanes.fill(place, Source(server.url, second, "t"))
        assert (place / "work" / "a").read_text() == "1"
        assert lanes.fill(place, Source(server.url, first, "t")) == place / "work", "what is there needs no network"


def test_a_token_that_is_not_taken_is_told_without_the_token(lanes: Lanes, tmp_path: Path) -> None:
    repository = bare(tmp_path / "repository")
    sha = commit(repository, {"a": "1"})
    with (
        smart_http.serve(repository, expects="Bearer right") as server,
        lanes.hold("shop", "protected") as place,
        pytest.raises(errors.CommandFailed) as caught,
    ):
        lanes.fill(place, Source(server.url, sha, "wrong-token"))
    assert "wrong-token" not in str(caught.value) + " ".join(caught.value.argv)


def test_links_and_closed_directories_of_a_job_hurt_nothing_outside(lanes: Lanes, tmp_path: Path) -> None:
    repository = bare(tmp_path / "repository")
    sha = commit(repository, {"dir/a": "1"})
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    with smart_http.serve(repository) as server, lanes.hold("shop", "protected") as place:
        tree = lanes.fill(place, Source(server.url, sha, "t"))
        (tree / "dir" / "a").unlink()
        (tree / "dir").rmdir()
        (tree / "dir").symlink_to(outside)
        (tree / "closed").mkdir()
        (tree / "closed" / "x").write_text("")
        os.chmod(tree / "closed", 0)  # noqa: PTH101 - what a build tool does
        tree = lanes.fill(place, Source(server.url, sha, "t"))
        assert (tree / "dir" / "a").read_text() == "1"
        assert not (tree / "dir").is_symlink()
        assert [path.name for path in outside.iterdir()] == ["precious"]
