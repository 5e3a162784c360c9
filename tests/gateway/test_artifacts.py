"""Artifacts between a host and a real gateway: which files are read, who gets them, where they are laid (R69)."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import uvicorn

from keepflow import errors
from keepflow.agent.artifacts import Artifacts
from keepflow.crypto import tokens
from keepflow.engine import artifacts as engine
from keepflow.engine import clock
from keepflow.gateway.app import create_app
from keepflow.store import artifacts, jobs
from keepflow.wire.messages import RunJob
from tests.engine.test_dispatch import push
from tests.engine.world import PlayedAgent, World
from tests.real.waiting import free_port, wait_until

GRAPH = """\
version: 1
flows:
  dev:
    on: {push: dev}
    jobs:
      package: {steps: [{run: make}]}
      use: {needs: package, steps: [{run: make}]}
      other: {steps: [{run: make}]}
"""


class Said(list[str]):
    """What was said in a job's log."""

    tell = say_line = list.append


class Kept:
    """A world whose gateway is reached, with the orders of the jobs of keepwork#1."""

    def __init__(self, world: World, url: str) -> None:
        self.world, self.files = world, Artifacts(url, None, None)
        project, repository = world.project()
        self.agent: PlayedAgent = world.agent(slots=5)
        push(world, project, repository, GRAPH)
        self.orders: dict[str, RunJob] = {order.job: order for order in self.agent.orders()}
        self.said = Said()

    def keep(self, tree: Path, *patterns: str, job: str = "package", seconds: float = 0.0) -> None:
        self.files.keep(self.orders[job], tree, patterns, seconds, self.said)

    def listed(self) -> list[tuple[str, str, int]]:
        with self.world.read() as conn:
            return [(key, one.path, one.size) for key, _, one in artifacts.of_run(conn, self.world.run().id)]


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    world, port = World(tmp_path / "world"), free_port()
    try:
        with gateway(world, port):
            yield Kept(world, f"http://127.0.0.1:{port}")
    finally:
        world.close()


@contextlib.contextmanager
def gateway(world: World, port: int) -> Iterator[None]:
    """Run the real gateway of a world."""
    config = uvicorn.Config(create_app(world.master, None), "127.0.0.1", port, lifespan="off", log_level="error")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        wait_until(lambda: server.started, 20, "the server's start")
        yield
    finally:
        server.should_exit = True
        thread.join(10)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    made = tmp_path / "tree"
    for name, data in {"dist/app": "binary", "dist/deep/map.js": "{}", "report é.html": "<p>", "empty": ""}.items():
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).write_text(data)
    (made / "dist/app").chmod(0o755)
    return made


def test_r69_declared_files_are_stored_and_reach_the_job_that_needs_them(
    kept: Kept, tree: Path, tmp_path: Path
) -> None:
    kept.keep(tree, "dist", "report*.html", "empty")
    paths = [("package", "dist/app", 6), ("package", "dist/deep/map.js", 2)]
    assert sorted(kept.listed()) == [*paths, ("package", "empty", 0), ("package", "report é.html", 3)]
    kept.agent.finish(kept.orders["package"])
    [use] = kept.agent.orders()
    assert (use.job, use.artifacts) == ("use", 4)
    later = tmp_path / "later"
    (later / "dist").mkdir(parents=True)
    (later / "dist/app").write_text("older")
    kept.files.fetch(use, later, kept.said)
    assert (later / "dist/app").read_text() == "binary"
    assert (later / "dist/app").stat().st_mode & 0o777 == 0o755
    assert (later / "report é.html").stat().st_mode & 0o777 == 0o644
    assert (later / "empty").read_bytes() == b""
    assert not list(later.rglob(".keepflow-*"))
    assert "── 4 artifacts of earlier jobs" in kept.said


def test_r74_a_job_gets_files_of_jobs_it_needs_and_of_no_other(kept: Kept, tree: Path, tmp_path: Path) -> None:
    kept.keep(tree, "dist/app", job="other")
    kept.keep(tree, "dist/app")
    kept.agent.finish(kept.orders["other"])
    kept.agent.finish(kept.orders["package"])
    [use] = kept.agent.orders()
    assert use.artifacts == 1
    listed = kept.files._ask(use, "GET", "/artifacts/needed").json()["items"]
    with kept.world.read() as conn:
        others = [one.id for key, _, one in artifacts.of_run(conn, kept.world.run().id) if key == "other"]
    assert [one["id"] for one in listed] != others
    for number in (*others, 999):
        with pytest.raises(errors.RemoteError, match="no such artifact"):
            kept.files._ask(use, "GET", f"/artifacts/needed/{number}")
    dead = use.model_copy(update={"token": kept.orders["package"].token, "artifacts": 1})
    strange = use.model_copy(update={"token": tokens.new("job"), "artifacts": 1})
    for order in (dead, strange):
        with pytest.raises(errors.RemoteError, match="token"):
            kept.files.fetch(order, tmp_path, kept.said)


def test_t17_no_link_leads_out_of_the_checkout_neither_in_nor_out(kept: Kept, tree: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "shadow").write_text("c4nary of the host")
    (tree / "dist/link").symlink_to(outside / "shadow")
    (tree / "away").symlink_to(outside)
    os.mkfifo(tree / "dist/pipe")
    kept.keep(tree, "dist")
    assert {path for _, path, _ in kept.listed()} == {"dist/app", "dist/deep/map.js"}
    assert sorted(line for line in kept.said if "left out" in line) == [
        "left out: dist/link is no plain file of this job",
        "left out: dist/pipe is no plain file of this job",
    ]
    with pytest.raises(errors.UsageError, match="no file fits 'away'"):
        kept.keep(tree, "away")
    kept.agent.finish(kept.orders["package"])
    [use] = kept.agent.orders()
    later = tmp_path / "later"
    later.mkdir()
    (later / "dist").symlink_to(outside)
    with pytest.raises(errors.UsageError, match="has no place in the checkout"):
        kept.files.fetch(use, later, kept.said)
    assert [path.name for path in outside.iterdir()] == ["shadow"]


def test_r23_a_path_that_fits_no_file_fails_and_is_named(kept: Kept, tree: Path) -> None:
    with pytest.raises(errors.UsageError, match=r"no file fits 'missing\.txt'") as caught:
        kept.keep(tree, "dist", "missing.txt")
    assert caught.value.code == "no-artifact"


@pytest.mark.parametrize(
    "path", ["../x", "/etc/passwd", "a/../b", "a//b", "", ".", "a\nb", "a\\b", "x" * 401, "a/" + "y" * 256]
)
def test_t16_a_path_that_is_none_is_refused_by_the_master(kept: Kept, path: str) -> None:
    query = {"path": path, "sha256": "e" * 64, "keep": 0}
    with pytest.raises(errors.RemoteError, match="no path"):
        kept.files._ask(kept.orders["package"], "PUT", "/artifacts/kept", params=query, data=b"x")
    assert kept.listed() == []


def test_other_bytes_than_announced_and_odd_digests_leave_nothing(kept: Kept) -> None:
    home = kept.world.master.home
    for digest in ("0" * 64, "../../x", "", "A" * 64):
        with pytest.raises(errors.RemoteError):
            kept.files._ask(
                kept.orders["package"], "PUT", "/artifacts/kept", params={"path": "x", "sha256": digest}, data=b"x"
            )
    assert not [path for path in (home / "artifacts").rglob("*") if path.is_file()]


def test_r69_what_has_had_its_time_is_let_go_of_and_shared_bytes_stay(kept: Kept, tree: Path) -> None:
    (tree / "copy").write_text("binary")
    kept.keep(tree, "dist/app", "empty", seconds=60.0)
    kept.keep(tree, "copy")
    files = kept.world.master.home / "artifacts"
    assert len([path for path in files.rglob("*") if path.is_file()]) == 2
    (files / "incoming-left").write_text("half")
    engine.sweep(kept.world.master, clock.now() + 30_000_000)
    assert (files / "incoming-left").exists(), "it may still be coming"
    os.utime(files / "incoming-left", (1, 1))
    engine.sweep(kept.world.master, clock.now() + 30_000_000)
    assert len([path for path in files.rglob("*") if path.is_file()]) == 2
    engine.sweep(kept.world.master, clock.now() + 61_000_000)
    assert [path.read_text() for path in files.rglob("*") if path.is_file()] == ["binary"]
    with kept.world.read() as conn:
        gone = {one.path: one.removed_at is not None for _, _, one in artifacts.of_run(conn, kept.world.run().id)}
        assert gone == {"dist/app": True, "empty": True, "copy": False}
        assert jobs.of_run(conn, kept.world.run().id)


def test_artifacts_wait_for_a_master_that_is_being_restarted(tree: Path, tmp_path: Path) -> None:
    """Kept and fetched once it is back; a master that never comes back is told in words after a while."""
    world, port = World(tmp_path / "world"), free_port()
    kept = Kept(world, f"http://127.0.0.1:{port}")
    try:
        with ThreadPoolExecutor() as beside:
            keeping = beside.submit(kept.keep, tree, "dist")
            wait_until(lambda: any("the master cannot be reached; waits" in line for line in kept.said), 20, "a wait")
            with gateway(world, port):
                keeping.result(60)
        assert {path for _, path, _ in kept.listed()} == {"dist/app", "dist/deep/map.js"}
        kept.files = Artifacts(kept.files.master, None, None, most=0.3)
        with pytest.raises(errors.Unavailable, match=r"cannot be reached: .*; it was waited for, 300ms$"):
            kept.keep(tree, "dist")
    finally:
        world.close()
