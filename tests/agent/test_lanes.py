"""Lanes: kept, held by one, brought to a commit whatever was left in them, and never lost to a bad network."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from keepflow import errors
from keepflow.agent.lanes import Lanes, Source
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
