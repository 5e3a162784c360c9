"""The repository of a run, at a real gateway: who may fetch, who may add what, and what is refused (R32)."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import uvicorn

from keepflow import errors
from keepflow.agent.handing_on import NOT_HANDED_ON, repository_of
from keepflow.agent.lanes import Lanes, Source
from keepflow.agent.workspaces import Workspaces
from keepflow.core.states import State
from keepflow.engine import workspaces
from keepflow.executors.shell import Account
from keepflow.gateway.app import create_app
from keepflow.store import workspaces as stored
from keepflow.tools.git import packing
from keepflow.wire.messages import RunJob
from tests.engine.test_dispatch import push
from tests.engine.world import PlayedAgent, World
from tests.real.waiting import free_port, wait_until
from tests.tools.repositories import git

GRAPH = """\
version: 1
flows:
  dev:
    on: {push: dev}
    jobs:
      make: {labels: linux, steps: [{run: make}]}
      other: {labels: linux, steps: [{run: make}]}
      train: {needs: [make, other], labels: gpu, steps: [{run: make}]}
"""
NONE = "0" * 40


class Silent:
    """A log that nobody reads."""

    def tell(self, text: str) -> None:
        pass

    def say_line(self, text: str) -> None:
        pass


class Spanning:
    """A world with two agents whose gateway is reached, and the orders of keepwork#1."""

    def __init__(self, world: World, url: str, place: Path) -> None:
        self.world, self.url = world, url
        self.project, self.repository = world.project()
        self.linux: PlayedAgent = world.agent("linux", labels=("linux",), slots=5)
        self.gpu: PlayedAgent = world.agent("gpu", labels=("gpu",), slots=5)
        # On one of the hosts jobs have an account of their own, where that can be.
        account = Account(65534, 65534) if os.geteuid() == 0 else None
        self.hosts = {
            "linux": Workspaces(Lanes(place / "linux")),
            "gpu": Workspaces(Lanes(place / "gpu", account), account),
        }
        push(world, self.project, self.repository, GRAPH)
        self.orders: dict[str, RunJob] = {order.job: order for order in self.linux.orders()}

    def source(self, order: RunJob) -> Source:
        return Source(f"{self.url}{order.code_path}", order.sha, order.token)

    def work(self, job: str, files: dict[str, str], host: str = "linux") -> None:
        """Carry a job out: write files, hand them on, report its end."""
        order = self.orders[job]
        with self.hosts[host].of(order, self.source(order)) as tree:
            for path, text in files.items():
                (tree / path).parent.mkdir(parents=True, exist_ok=True)
                (tree / path).write_text(text)
            if order.shared is not None and order.shared.hands_on:
                self.hosts[host].hand_on(order, self.source(order), Silent())
        (self.linux if host == "linux" else self.gpu).finish(order)

    def address(self, job: str = "make", run: int | None = None) -> str:
        order = self.orders[job]
        return repository_of(order.model_copy(update={"run": run or order.run}), self.source(order))

    def ask(self, method: str, path: str, token: str | None = None, **more: Any) -> requests.Response:
        """Ask as the job `make`, or with another token."""
        lent = self.orders["make"].token if token is None else token
        headers = {"Authorization": f"Bearer {lent}", **more.pop("headers", {})}
        return requests.request(method, path, headers=headers, timeout=20, **more)

    def add(self, body: bytes, job: str = "make", token: str | None = None) -> requests.Response:
        """Push a body."""
        kind = {"Content-Type": "application/x-git-receive-pack-request"}
        return self.ask("POST", f"{self.address(job)}/git-receive-pack", token, headers=kind, data=body)

    def refs(self) -> str:
        path = workspaces.path_of(self.world.master, self.world.run().id)
        return git(path, "for-each-ref", "--format=%(refname)") if path.exists() else ""


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that other accounts may enter."""
    found = Path(tempfile.mkdtemp(dir="/var/tmp", prefix="kf-test-"))
    found.chmod(0o711)
    yield found
    shutil.rmtree(found)


@pytest.fixture
def spanning(tmp_path: Path, place: Path) -> Iterator[Spanning]:
    world, port = World(tmp_path / "world"), free_port()
    config = uvicorn.Config(create_app(world.master, None), "127.0.0.1", port, lifespan="off", log_level="error")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        wait_until(lambda: server.started, 20, "the server's start")
        made = Spanning(world, f"http://127.0.0.1:{port}", place)
        yield made
        for host in made.hosts.values():
            host.release("keepwork", 1)
    finally:
        server.should_exit = True
        thread.join(10)
        world.close()


def line(fence: int, commit: str, *, old: str = NONE, ref: str | None = None) -> bytes:
    text = f"{old} {commit} {ref or f'refs/attempts/{fence}/{commit}'}\0 report-status"
    return b"%04x%b" % (len(text) + 4, text.encode())


def packed(parent: str, entries: dict[bytes, packing.Entry], blobs: tuple[bytes, ...] = ()) -> tuple[str, bytes]:
    """Return a commit of some files, and the pack of it."""
    file = io.BytesIO()
    pack = packing.Pack(file)
    tree, trees = packing.trees(entries)
    made = packing.commit(tree, parent, "{}\n", ("x", "x@example.org"))
    for data in dict.fromkeys(blobs):
        pack.add(b"blob", data)
    for data in trees.values():
        pack.add(b"tree", data)
    pack.add(b"commit", made)
    pack.close()
    return packing.object_id(b"commit", made), file.getvalue()


def blob(data: bytes, mode: bytes = packing.FILE) -> packing.Entry:
    return packing.Entry(mode, packing.object_id(b"blob", data))


def test_r32_what_two_jobs_left_is_found_together_on_another_machine(spanning: Spanning) -> None:
    spanning.work("make", {"out/app": "binary", "empty.o": ""})
    spanning.work("other", {"report": "fine"})
    [train] = spanning.gpu.orders()
    assert train.shared is not None
    assert set(train.shared.away) == {"make", "other"}
    assert not train.shared.hands_on, "nobody goes on with it"
    with spanning.hosts["gpu"].of(train, spanning.source(train)) as tree:
        assert ((tree / "out/app").read_text(), (tree / "report").read_text()) == ("binary", "fine")
    spanning.gpu.finish(train)
    assert spanning.world.run().state is State.SUCCEEDED
    workspaces.sweep(spanning.world.master)
    assert list((spanning.world.home / "home" / "workspaces").iterdir()) == []
    with spanning.world.read() as conn:
        assert stored.held_by(conn, spanning.world.run().id) == 0


def test_r32_what_both_changed_on_one_machine_is_named_on_the_other(spanning: Spanning) -> None:
    spanning.work("make", {"code.py": "of make", "same": "x", "big": "m" * 9_000_000})
    spanning.work("other", {"code.py": "of other", "same": "x", "big": "o" * 9_000_000})
    [train] = spanning.gpu.orders()
    with (
        pytest.raises(errors.Refused, match=r"both changed big, code\.py$") as caught,
        spanning.hosts["gpu"].of(train, spanning.source(train)),
    ):
        pass
    assert caught.value.code == "conflict"


def test_a_large_file_goes_beside_git_once_and_is_forgotten_with_its_run(spanning: Spanning) -> None:
    data = "0123456789" * 1_000_000
    digest = hashlib.sha256(data.encode()).hexdigest()
    spanning.work("make", {"a/large": data, "copy": data})
    store = spanning.world.home / "home" / "artifacts"
    assert [path.name for path in store.rglob("*") if path.is_file()] == [digest]
    spanning.work("other", {})
    [train] = spanning.gpu.orders()
    with spanning.hosts["gpu"].of(train, spanning.source(train)) as tree:
        assert (tree / "a/large").read_text() == (tree / "copy").read_text() == data
    packs = workspaces.path_of(spanning.world.master, spanning.world.run().id) / "objects" / "pack"
    assert sum(path.stat().st_size for path in packs.iterdir()) < 1_000_000
    spanning.gpu.finish(train)
    workspaces.sweep(spanning.world.master)
    assert not [path for path in store.rglob("*") if path.is_file()]


def test_t18_no_token_an_ended_one_and_one_of_another_run_open_nothing(spanning: Spanning) -> None:
    spanning.work("other", {"secret": "of run 1"})
    commit = spanning.orders["make"].sha
    for token in ("", "x", spanning.orders["make"].token + "x", spanning.orders["other"].token):
        for method, path in (
            ("GET", "info/refs?service=git-upload-pack"),
            ("GET", "info/refs?service=git-receive-pack"),
            ("POST", "git-upload-pack"),
            ("POST", "git-receive-pack"),
            ("PUT", f"files/{'a' * 64}"),
            ("GET", f"files/{'a' * 64}"),
        ):
            assert spanning.ask(method, f"{spanning.address()}/{path}", token).status_code == 401, path
    spanning.linux.finish(spanning.orders["make"], "failed")
    push(spanning.world, spanning.project, spanning.repository, GRAPH)
    second = next(order for order in spanning.linux.orders() if isinstance(order, RunJob) and order.run == 2)
    for path in ("info/refs?service=git-upload-pack", "info/refs?service=git-receive-pack", f"files/{'a' * 64}"):
        assert spanning.ask("GET", f"{spanning.address()}/{path}", second.token).status_code == 404
        assert spanning.ask("GET", f"{spanning.address()}/{path}").status_code == 401, "its own attempt has ended"
    assert spanning.add(line(second.fence, commit) + b"0000", token=second.token).status_code == 404
    elsewhere = spanning.address(run=2).replace("/keepwork/", "/nothing/")
    assert spanning.ask("GET", f"{elsewhere}/info/refs?service=git-upload-pack", second.token).status_code == 404
    own = spanning.ask("GET", f"{spanning.address(run=2)}/info/refs?service=git-upload-pack", second.token)
    assert own.status_code == 200


@pytest.mark.parametrize(
    "change",
    [
        {"ref": "refs/heads/master"},
        {"ref": "refs/attempts/999/{commit}"},
        {"ref": "refs/attempts/{fence}/../../heads/x"},
        {"ref": "refs/attempts/{fence}/" + "b" * 40},
        {"ref": "HEAD"},
        {"old": "c" * 40},
    ],
)
def test_a_job_adds_refs_of_its_own_attempt_and_touches_no_other(spanning: Spanning, change: dict[str, str]) -> None:
    fence, sha = spanning.orders["make"].fence, spanning.orders["make"].sha
    commit, pack = packed(sha, {b"x": blob(b"x")}, (b"x",))
    said = {key: value.format(commit=commit, fence=fence) for key, value in change.items()}
    assert spanning.add(line(fence, commit, **said) + b"0000" + pack).status_code == 403
    twice = line(fence, commit) + line(fence, commit, ref="refs/heads/evil") + b"0000" + pack
    assert spanning.add(twice).status_code == 403
    removing = line(fence, NONE, old=commit) + b"0000"
    assert spanning.add(removing).status_code == 403
    assert spanning.refs() == ""


HOSTILE = {
    "cve-2014-9390 a directory .git": {b".git/config": blob(b"x")},
    "cve-2014-9390 .GIT": {b"a/.GIT/hooks/post-checkout": blob(b"x")},
    "cve-2019-1352 git~1": {b"git~1/config": blob(b"x")},
    "cve-2018-11235 .gitmodules is a link": {b".gitmodules": blob(b"x", packing.LINK)},
    "a file named ..": {b"..": blob(b"x")},
    "a path through ..": {b"a/../../b": blob(b"x")},
    "an empty name": {b"a//b": blob(b"x")},
    "a file that did not come": {b"a": blob(b"never sent")},
}


@pytest.mark.parametrize("entries", HOSTILE.values(), ids=HOSTILE.keys())
def test_t16_a_hostile_tree_is_refused_by_the_master(spanning: Spanning, entries: dict[bytes, Any]) -> None:
    fence, sha = spanning.orders["make"].fence, spanning.orders["make"].sha
    commit, pack = packed(sha, entries, (b"x",))
    reply = spanning.add(line(fence, commit) + b"0000" + pack)
    assert (reply.status_code, b"ok refs/" in reply.content) == (200, False), reply.content
    assert spanning.refs() == ""
    with spanning.world.read() as conn:
        assert stored.of_run(conn, spanning.world.run().id) == {}


@pytest.mark.parametrize(
    "body", [b"", b"0000", b"garbage", b"ffff" + b"x" * 70_000, b"0005x", b"00" * 5000, b"0032" + b"0" * 46 + b"0000"]
)
def test_a_push_that_makes_no_sense_is_answered_and_adds_nothing(spanning: Spanning, body: bytes) -> None:
    assert spanning.add(body).status_code in (200, 400, 403)
    assert spanning.refs() == ""


def test_the_same_push_again_is_answered_as_the_first_one(spanning: Spanning) -> None:
    """As an agent does whose answer did not get through, because the master was killed."""
    fence, sha = spanning.orders["make"].fence, spanning.orders["make"].sha
    commit, pack = packed(sha, {b"x": blob(b"x")}, (b"x",))
    body = line(fence, commit) + b"0000" + pack
    for _ in range(2):
        reply = spanning.add(body)
        assert f"ok refs/attempts/{fence}/{commit}\n".encode() in reply.content
    with spanning.world.read() as conn:
        assert stored.of_run(conn, spanning.world.run().id)["make"].commit == commit
        assert stored.held_by(conn, spanning.world.run().id) == len(body)


def test_nothing_is_taken_over_the_limits(spanning: Spanning, monkeypatch: pytest.MonkeyPatch) -> None:
    fence, sha = spanning.orders["make"].fence, spanning.orders["make"].sha
    commit, pack = packed(sha, {b"x": blob(b"x")}, (b"x",))
    body = line(fence, commit) + b"0000" + pack
    with monkeypatch.context() as patch:
        patch.setattr("keepflow.gateway.run_git.MOST_PACK", 64)
        assert spanning.add(body).status_code == 413
        chunked = spanning.add(iter([body[:100], body[100:]]))  # type: ignore[arg-type]  # without a length
        assert chunked.status_code == 413
    with monkeypatch.context() as patch:
        patch.setattr("keepflow.engine.workspaces.MOST_OF_RUN", 10)
        digest = hashlib.sha256(b"x" * 11).hexdigest()
        assert spanning.ask("PUT", f"{spanning.address()}/files/{digest}", data=b"x" * 11).status_code == 413
        assert spanning.add(body).status_code == 413
    with monkeypatch.context() as patch:
        patch.setattr("keepflow.engine.artifacts.RESERVE", 2**60)
        assert spanning.add(body).status_code == 503
    with spanning.world.read() as conn:
        assert stored.held_by(conn, spanning.world.run().id) == 0


def test_other_bytes_than_announced_are_no_file_of_a_run(spanning: Spanning) -> None:
    address = f"{spanning.address()}/files/{hashlib.sha256(b'right').hexdigest()}"
    assert spanning.ask("PUT", address, data=b"wrong").status_code == 400
    assert spanning.ask("GET", address).status_code == 404
    assert spanning.ask("PUT", address, data=b"right").status_code == 201
    assert spanning.ask("GET", address).content == b"right"


def test_a_workspace_that_leads_out_is_refused_by_the_machine_that_fetches_it(spanning: Spanning) -> None:
    """The last guard: what a master, or another agent, says of paths is not believed."""
    spanning.work("other", {})
    order, sha = spanning.orders["make"], spanning.orders["make"].sha
    file = io.BytesIO()
    pack = packing.Pack(file)
    tree, trees = packing.trees({b"x": blob(b"x")})
    text = '{"history": [], "stamps": {"../../evil": "make"}, "large": {}, "empty": []}\n'
    made = packing.commit(tree, sha, text, ("x", "x@example.org"))
    for kind, data in ((b"blob", b"x"), *((b"tree", data) for data in trees.values()), (b"commit", made)):
        pack.add(kind, data)
    pack.close()
    commit = packing.object_id(b"commit", made)
    assert spanning.add(line(order.fence, commit) + b"0000" + file.getvalue()).status_code == 200
    spanning.linux.finish(order)
    [train] = spanning.gpu.orders()
    with (
        pytest.raises(errors.RemoteError, match="leads out of the workspace") as caught,
        spanning.hosts["gpu"].of(train, spanning.source(train)),
    ):
        pass
    assert caught.value.code == NOT_HANDED_ON


def test_git_itself_can_fetch_and_push_there(spanning: Spanning, tmp_path: Path) -> None:
    order = spanning.orders["make"]
    header = f"http.extraHeader=Authorization: Bearer {order.token}"
    here = tmp_path / "clone"
    git(tmp_path, "-c", header, "clone", "-q", f"{spanning.url}{order.code_path}", str(here))
    git(here, "checkout", "-q", order.sha)
    (here / "new").write_text("x")
    git(here, "add", ".")
    git(here, "commit", "-qm", '{"history": [], "stamps": {}, "large": {}, "empty": []}')
    head = git(here, "rev-parse", "HEAD").strip()
    git(here, "-c", header, "push", "-q", spanning.address(), f"HEAD:refs/attempts/{order.fence}/{head}")
    git(here, "-c", header, "fetch", "-q", spanning.address(), head)
    assert spanning.refs().strip() == f"refs/attempts/{order.fence}/{head}"


def test_what_is_no_file_of_the_job_stays_and_is_named(spanning: Spanning, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("of somebody else")
    said: list[str] = []

    class Heard(Silent):
        def tell(self, text: str) -> None:
            said.append(text)

    order = spanning.orders["make"]
    with spanning.hosts["linux"].of(order, spanning.source(order)) as tree:
        os.mkfifo(tree / "pipe")
        (tree / "deep").mkdir()
        for name in (".git", "deep/.GIT"):
            (tree / name).mkdir()
            (tree / name / "config").write_text("[core] fsmonitor = touch x")
        (tree / "link").symlink_to(secret)
        (tree / "folder").symlink_to(secret.parent)
        (tree / "a\nb 'c' \\").write_text("odd")
        os.symlink("x", os.fsencode(tree) + b"/\xff")  # noqa: PTH211 - a name that is no text
        spanning.hosts["linux"].hand_on(order, spanning.source(order), Heard())
    spanning.linux.finish(order)
    spanning.work("other", {})
    [train] = spanning.gpu.orders()
    with spanning.hosts["gpu"].of(train, spanning.source(train)) as tree:
        assert (tree / "link").is_symlink()
        assert (tree / "folder").is_symlink()
        assert (tree / "a\nb 'c' \\").read_text() == "odd"
        assert os.readlink(os.fsencode(tree) + b"/\xff") == b"x"  # noqa: PTH115 - a name that is no text
        assert (tree / "deep").is_dir()
        assert not list(tree.rglob(".[gG][iI][tT]"))
        assert not (tree / "pipe").exists()
    left_out = sorted(line for line in said if line.startswith("left out"))
    assert [line.split()[2] for line in left_out] == [".git", "deep/.GIT", "pipe"]


def test_more_files_than_can_travel_are_refused_by_name(spanning: Spanning, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keepflow.agent.handing_on.MOST_FILES", 3)
    with pytest.raises(errors.TooLarge, match="more than 3 files cannot go on"):
        spanning.work("make", {"a": "", "b": "", "c": "", "d": ""})
    monkeypatch.setattr("keepflow.agent.handing_on.MOST_FILES", 300)
    monkeypatch.setattr("keepflow.agent.handing_on.MOST_PACK", 100)
    with pytest.raises(errors.TooLarge, match="the changed files are more than"):
        spanning.work(
            "make", {"a": "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ!#$%&()=?+*-_.:,;<>@" * 2}
        )
