"""A checkout that moves on: one request, one process, the same result as git's own fetch, and git when it must be."""

from __future__ import annotations

import io
import os
import time
from pathlib import Path

import pytest

from keepflow.tools import processes
from keepflow.tools.git import Lane, onward
from tests.tools.repositories import bare, commit, git
from tests.tools.smart_http import serve


@pytest.fixture
def lane(tmp_path: Path) -> Lane:
    return Lane(tmp_path / "lane" / "git", tmp_path / "lane" / "work")


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    return bare(tmp_path / "origin.git")


def _content(lane: Lane) -> dict[str, str]:
    return {path.name: path.read_text() for path in lane.work_tree.iterdir()}


def _is_whole(lane: Lane) -> bool:
    git(lane.git_dir, "fsck", "--full", "--strict")
    return git(lane.git_dir, "rev-list", "--count", "refs/keepflow/current") == "1"


def test_moving_on_takes_one_request_and_leaves_a_whole_repository(lane: Lane, origin: Path) -> None:
    first = commit(origin, {"a": "1", "b": "x"})
    with serve(origin, expects="Bearer t") as server:
        lane.update(server.url, first, "Authorization: Bearer t")
        for number in range(3):
            server.requests.clear()
            sha = commit(origin, {"a": f"more {number}", f"c{number}": "new"})
            lane.update(server.url, sha, "Authorization: Bearer t")
            assert [request.partition(" ")[0] for request in server.requests] == ["POST"]
            assert _is_whole(lane)
        lane.checkout(sha)
    assert _content(lane) == {"a": "more 2", "b": "x", "c0": "new", "c1": "new", "c2": "new"}


def test_many_objects_and_another_history_come_the_same_way(lane: Lane, origin: Path) -> None:
    first = commit(origin, {"a": "1"})
    many = commit(origin, {f"d{n}/f": os.urandom(20).hex() for n in range(150)})
    other = commit(origin, {"alone": "yes"}, ref="other")
    with serve(origin) as server:
        lane.update(server.url, first)
        for sha in (many, other, first):
            server.requests.clear()
            lane.update(server.url, sha)
            assert len(server.requests) == 1
            assert _is_whole(lane)
            lane.checkout(sha)
    assert _content(lane) == {"a": "1"}


def test_what_is_out_of_the_ordinary_is_left_to_git(lane: Lane, origin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = commit(origin, {"a": "1"})
    monkeypatch.setattr(onward, "_MOST_PACK", 10)
    with serve(origin) as server:
        lane.update(server.url, first)
        second = commit(origin, {"a": "2"})
        server.requests.clear()
        lane.update(server.url, second)
        assert len(server.requests) > 1
    lane.checkout(second)
    assert _content(lane) == {"a": "2"}
    assert _is_whole(lane)


def test_a_damaged_pack_changes_nothing_that_matters(lane: Lane, origin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = commit(origin, {"a": "1"})
    with serve(origin) as server:
        lane.update(server.url, first)
        second = commit(origin, {"a": "2"})
        real = onward._ask

        def damaged(*arguments: object) -> object:
            shallow, pack = real(*arguments)  # type: ignore[arg-type]  # passed through as it came
            return shallow, pack[:-3] + b"xyz"

        monkeypatch.setattr(onward, "_ask", damaged)
        with pytest.raises(onward.Unusual):
            onward.fetch(
                lane.git_dir, "refs/keepflow/current", server.url, first, second, None, ca_file=None, timeout=30
            )
        assert git(lane.git_dir, "rev-parse", "refs/keepflow/current") == first
        lane.update(server.url, second)
    lane.checkout(second)
    assert _content(lane) == {"a": "2"}
    assert _is_whole(lane)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"0005",
        b"zzzz",
        b"000dpackfile\n0008\x01PAC",
        b"000dpackfile\n0009\x03oops\n0000"[:-5],
        b"000dpackfile\n000a\x03oops\n0000",
        b"0010shallow-info\n",
    ],
)
def test_an_answer_that_breaks_off_or_says_no_is_no_answer(answer: bytes) -> None:
    with pytest.raises((onward.Unusual, ValueError)):
        onward._read(io.BytesIO(answer), time.monotonic() + 10)


def test_a_pack_that_is_none_reaches_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "run", lambda *_, **__: pytest.fail("nothing is to be run"))
    with pytest.raises(onward.Unusual, match="no pack"):
        onward._unpack(tmp_path, b"", 1)
