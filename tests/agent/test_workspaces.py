"""The files of a run's jobs: each goes on where those before it stopped, and nobody else ever sees them (R32)."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from keepflow import errors
from keepflow.agent.lanes import Lanes, Source
from keepflow.agent.workspaces import Workspaces
from keepflow.executors.shell import Account
from keepflow.wire.messages import RunJob, Shared
from tests.agent.test_attempts import order
from tests.tools import smart_http
from tests.tools.repositories import bare, commit

FILES: dict[str, str | bytes | None] = {"app.c": "1", "docs/a.md": "a", ".gitignore": "*.o\ncache/\n"}


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that other accounts may enter."""
    found = Path(tempfile.mkdtemp(dir="/var/tmp", prefix="kf-test-"))
    found.chmod(0o711)
    yield found
    shutil.rmtree(found)


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Source]:
    repository = bare(tmp_path / "repository")
    sha = commit(repository, FILES)
    with smart_http.serve(repository) as server:
        yield Source(server.url, sha, "t")


@pytest.fixture(params=[None, pytest.param(Account(65534, 65534), id="account")])
def account(request: pytest.FixtureRequest) -> Account | None:
    """Jobs as the agent itself, and as an account of their own."""
    if request.param and os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    found: Account | None = request.param
    return found


@pytest.fixture
def workspaces(place: Path, account: Account | None) -> Workspaces:
    return Workspaces(Lanes(place / "lanes", account), account)


def job(key: str, *bases: str, run: int = 1, followers: int = 0, tracked: bool = True, **more: bool) -> RunJob:
    """Return a job that goes on with the files of others."""
    shared = Shared(bases=bases, followers=followers, tracked=tracked, **more)
    return order(1, job=key, run=run, project="shop", shared=shared)


def held(place: Path) -> list[str]:
    """List lanes that are kept for somebody."""
    return sorted(note.parent.name for note in place.glob("lanes/shop/*/kept.json"))


def read(tree: Path) -> dict[str, str]:
    return {str(path.relative_to(tree)): path.read_text() for path in tree.rglob("*") if path.is_file()}


def test_r32_one_job_after_the_other_finds_everything_in_the_same_lane(
    workspaces: Workspaces, source: Source, place: Path
) -> None:
    with workspaces.of(job("a", followers=1, tracked=False), source) as first:
        (first / "out").write_text("built")
    assert (place / "lanes/shop/protected-1").stat().st_mode & 0o077 == 0, "nobody looks into it meanwhile"
    with workspaces.of(order(9, project="shop", run=2), source) as other:
        assert "out" not in read(other), "another run has another lane"
    with workspaces.of(job("b", "a", tracked=False), source) as second:
        assert second == first
        assert read(second)["out"] == "built"
    assert held(place) == []
    with workspaces.of(order(10, project="shop", run=3), source) as next_run:
        assert (next_run, read(next_run)) == (first, FILES)


def test_r32_jobs_side_by_side_have_trees_of_their_own_and_a_later_one_finds_what_all_of_them_made(
    workspaces: Workspaces, source: Source, place: Path
) -> None:
    with workspaces.of(job("a", followers=2), source) as tree:
        (tree / "made" / "deep").mkdir(parents=True)
        (tree / "made" / "deep" / "-x y\n").write_text("a")
        (tree / "link").symlink_to("made/deep")
        (tree / "empty").mkdir()
    with (
        workspaces.of(job("b", "a", followers=1), source) as one,
        workspaces.of(job("c", "a", followers=1), source) as two,
    ):
        assert one != two
        assert read(one) == read(two)
        assert (two / "empty").is_dir()
        assert os.readlink(two / "link") == os.readlink(one / "link") == "made/deep"  # noqa: PTH115 - the text itself
        (one / "app.c").write_text("2")
        (one / "report").write_text("b")
        (two / "docs" / "a.md").unlink()
        (two / "docs").rmdir()
        (two / "docs").write_text("a file now")
    with workspaces.of(job("d", "b", "c"), source) as tree:
        found = read(tree)
        assert (found["app.c"], found["report"], found["docs"]) == ("2", "b", "a file now")
        assert found["made/deep/-x y\n"] == "a"
    workspaces.release("shop", 1)
    assert held(place) == []


def test_what_two_jobs_side_by_side_changed_differently_ends_the_job_with_the_files_named(
    workspaces: Workspaces, source: Source, place: Path
) -> None:
    for key, text in (("a", "of a"), ("b", "of b")):
        with workspaces.of(job(key, followers=2), source) as tree:
            (tree / "app.c").write_text(text)
            (tree / "same").write_text("same")
            (tree / "cache" / "deep").mkdir(parents=True)
            (tree / "cache" / "deep" / "x").write_text(text)
            (tree / "app.o").write_text(text)
    with (
        pytest.raises(errors.Refused, match=r"both changed app\.c$") as caught,
        workspaces.of(job("c", "a", "b"), source),
    ):
        pass
    assert caught.value.code == "conflict"
    with workspaces.of(job("mail", "a", "b", lenient=True), source) as tree:
        assert (tree / "app.c").read_text() == "of a"
    workspaces.release("shop", 1)
    assert held(place) == []


def test_a_job_that_may_be_tried_again_finds_the_same_files_each_time(workspaces: Workspaces, source: Source) -> None:
    with workspaces.of(job("a", followers=1), source) as tree:
        (tree / "out").write_text("built")
    for _ in range(2):
        with workspaces.of(job("b", "a", again=True), source) as tree:
            assert read(tree)["out"] == "built"
            (tree / "out").write_text("spoilt")
    workspaces.release("shop", 1)


def test_kept_files_outlive_a_restart_of_the_agent(source: Source, place: Path) -> None:
    before = Workspaces(Lanes(place / "lanes"))
    with before.of(job("a", followers=1), source) as tree:
        (tree / "out").write_text("built")
    before._kept[("shop", 1)]["a"].held.lock.close()  # as the end of its process does
    after = Workspaces(Lanes(place / "lanes"))
    with after.of(order(9, project="shop", run=2), source) as other:
        assert "out" not in read(other)
    with after.of(job("b", "a"), source) as tree:
        assert read(tree)["out"] == "built"


def test_files_that_are_gone_are_told_and_never_silently_missing(workspaces: Workspaces, source: Source) -> None:
    with pytest.raises(errors.Refused, match="the files that a left are not on this host") as caught:
        workspaces.of(job("b", "a"), source).__enter__()
    assert caught.value.code == "no-files"


def test_a_job_that_is_stopped_after_its_run_has_ended_keeps_nothing(
    workspaces: Workspaces, source: Source, place: Path
) -> None:
    with workspaces.of(job("a", followers=1), source):
        workspaces.release("shop", 1)
    assert held(place) == []
    with workspaces.of(order(9, project="shop", run=2), source) as tree:
        assert tree.parent.name == "protected-1"
