"""Submodules and files of Git LFS between a real gateway and a host: what a repository may wish for, and gets (R13)."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
import uvicorn

from keepflow import errors
from keepflow.agent.lanes import Lanes, Source
from keepflow.agent.workspaces import Workspaces
from keepflow.engine import lfs
from keepflow.executors.shell import Account
from keepflow.gateway.app import create_app
from keepflow.wire.messages import RunJob
from tests.engine.world import PlayedAgent, World
from tests.real.waiting import free_port, wait_until
from tests.tools.repositories import bare, commit, git

FLOW = "version: 1\nflows: {{dev: {{on: {{push: dev}}, checkout: {checkout}, steps: [{{run: make}}]}}}}\n"


class Asking:
    """A world with one project, whose submodules may come from the folder `libraries`, and one host."""

    def __init__(self, world: World, url: str, place: Path) -> None:
        self.world, self.url, self.libraries = world, url, world.home / "libraries"
        self.place = place
        self.lib = bare(self.libraries / "lib.git")
        self.sha = commit(self.lib, {"file": "of lib"})
        self.project, self.repository = world.project(submodules=[str(self.libraries)])
        self.agent: PlayedAgent = world.agent(slots=9)
        account = Account(65534, 65534) if os.geteuid() == 0 else None
        self.host = Workspaces(Lanes(place, account), account)
        self.last: RunJob | None = None

    def order(
        self, checkout: str, files: dict[str, str | bytes | None] | None = None, links: dict[str, str] | None = None
    ) -> RunJob:
        """Push files, and commits of other repositories by path; return the job of the run, which ends the last one."""
        if self.last is not None:
            self.agent.finish(self.last)
        commit(self.repository, {".keepflow.yml": FLOW.format(checkout=checkout), **(files or {})}, ref="dev")
        index = {"GIT_INDEX_FILE": str(self.repository / "test.index")}
        for path, sha in (links or {}).items():
            git(self.repository, "update-index", "--add", "--cacheinfo", f"160000,{sha},{path}", **index)
        sha = git(
            self.repository,
            "commit-tree",
            git(self.repository, "write-tree", **index),
            "-p",
            "refs/heads/dev",
            data=b"x",
        )
        git(self.repository, "update-ref", "refs/heads/dev", sha)
        self.world.send(self.project, self.world.pushed(sha))
        order: RunJob = self.agent.orders()[-1]
        self.last = order
        return order

    def source(self, order: RunJob) -> Source:
        return Source(f"{self.url}{order.code_path}", order.sha, order.token)

    def files(self, order: RunJob) -> dict[str, str]:
        """Return what is in the checkout of a job, links as the text of what they point to."""
        with self.host.of(order, self.source(order)) as tree:
            found = {str(path.relative_to(tree)): path for path in tree.rglob("*") if not path.is_dir()}
            return {name: path.read_text() for name, path in found.items()}

    def get(self, order: RunJob, path: str, token: str | None = None) -> requests.Response:
        headers = {"Authorization": f"Bearer {order.token if token is None else token}"}
        return requests.get(f"{self.url}{order.code_path}/{path}", headers=headers, timeout=20)


@pytest.fixture
def asking(tmp_path: Path) -> Iterator[Asking]:
    world, port = World(tmp_path / "world"), free_port()
    config = uvicorn.Config(create_app(world.master, None), "127.0.0.1", port, lifespan="off", log_level="error")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    place = Path(tempfile.mkdtemp(dir="/var/tmp", prefix="kf-test-"))
    place.chmod(0o711)
    try:
        wait_until(lambda: server.started, 20, "the server's start")
        yield Asking(world, f"http://127.0.0.1:{port}", place)
    finally:
        server.should_exit = True
        thread.join(10)
        world.close()
        shutil.rmtree(place)


def modules(*entries: tuple[str, str, str]) -> dict[str, str | bytes | None]:
    """Return a `.gitmodules` of (name, path, url)."""
    said = (f'[submodule "{name}"]\n\tpath = "{path}"\n\turl = {url}\n' for name, path, url in entries)
    return {".gitmodules": "".join(said)}


def test_r13_submodules_are_files_of_the_checkout_when_a_flow_asks_and_never_else(asking: Asking) -> None:
    files = modules(("lib", "third/lib", "../libraries/lib.git"))
    found = asking.files(asking.order("{submodules: true}", files, {"third/lib": asking.sha}))
    assert found["third/lib/file"] == "of lib"
    found = asking.files(asking.order("{}"))
    assert set(found) == {".keepflow.yml", ".gitmodules"}, "nothing of it is left for the next job"


def test_cve_2018_11235_the_name_of_a_submodule_leads_nowhere(asking: Asking) -> None:
    """Git itself refuses the names that did; of all others none is looked at."""
    hook = commit(asking.lib, {"hooks/post-checkout": "#!/bin/sh\ntouch /tmp/evil\n"})
    order = asking.order("{submodules: recursive}", modules(("hooks/x", "lib", "../libraries/lib.git")), {"lib": hook})
    assert set(asking.files(order)) == {".keepflow.yml", ".gitmodules", "lib/hooks/post-checkout", "lib/file"}
    mirrors = asking.world.home / "home" / "mirrors"
    assert {path.name for path in mirrors.iterdir()} == {"keepwork.git", "keepwork.modules"}
    with pytest.raises(errors.CommandFailed, match="disallowed submodule name"):
        asking.order("{submodules: true}", modules(("../../evil", "lib", "../libraries/lib.git")), {"lib": hook})


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc",
        "/etc",
        "../../../../etc",
        "../librariesX/lib.git",
        "../libraries/../keepwork.git",
        "https://127.0.0.1/x",
        "ext::sh -c touch% /tmp/evil",
        "-u./payload",
        "--upload-pack=touch /tmp/evil",
        "ssh://-oProxyCommand=x/y",
        "",
    ],
)
def test_cve_2018_17456_cve_2022_39253_only_addresses_of_the_masters_file_are_asked(asking: Asking, url: str) -> None:
    with pytest.raises((errors.Refused, errors.CommandFailed)) as caught:  # some of them git itself lets nowhere
        asking.files(asking.order("{submodules: true}", modules(("lib", "lib", url)), {"lib": asking.sha}))
    assert caught.value.code == "no-submodule" or "disallowed submodule url" in caught.value.message
    assert not list((asking.world.home / "home" / "mirrors").glob("*.modules/*"))


def test_cve_2025_48384_a_path_that_ends_in_a_line_end_is_no_other_path(asking: Asking) -> None:
    files: dict[str, str | bytes | None] = {
        ".gitmodules": '[submodule "lib"]\n\tpath = "lib\r"\n\turl = ../libraries/lib.git\n'
    }
    with pytest.raises(errors.Refused, match="does not say where"):
        asking.files(asking.order("{submodules: true}", files, {"lib": asking.sha}))


def test_a_commit_that_is_not_there_and_submodules_without_end_are_refused(asking: Asking) -> None:
    files = modules(("lib", "lib", "../libraries/lib.git"))
    with pytest.raises(errors.Refused, match="is not in its repository"):
        asking.files(asking.order("{submodules: true}", files, {"lib": "1" * 40}))
    many = {f"lib{number}": asking.sha for number in range(101)}
    with pytest.raises(errors.Refused, match="at most 100"):
        asking.files(asking.order("{submodules: true}", files, many))


def test_cve_2024_32002_what_a_job_laid_in_the_place_of_a_submodule_leads_the_next_one_nowhere(
    asking: Asking, tmp_path: Path
) -> None:
    files = modules(("lib", "third/lib", "../libraries/lib.git"))
    target = tmp_path / "target"
    target.mkdir()
    for swapped in ("third/lib", "third"):
        order = asking.order("{submodules: true}", {**files, "n": f"{swapped} 1"}, {"third/lib": asking.sha})
        with asking.host.of(order, asking.source(order)) as tree:
            shutil.rmtree(tree / swapped)
            (tree / swapped).symlink_to(target)
            (tree / "leak").write_text("of the job before")
        assert asking.files(order)["third/lib/file"] == "of lib"
        assert list(target.iterdir()) == []
        with asking.host.of(order, asking.source(order)) as tree:
            (tree / "third/lib/leak").write_text("where git does not clean")
        plain = asking.order("{}", {"n": swapped})
        assert set(asking.files(plain)) == {".keepflow.yml", ".gitmodules", "n"}


def pointer(data: bytes) -> tuple[str, str]:
    """Return the digest of some bytes, and the pointer file for them."""
    oid = hashlib.sha256(data).hexdigest()
    return oid, f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {len(data)}\n"


def stored(repository: Path, oid: str, data: bytes) -> None:
    """Put bytes where Git LFS has them."""
    place = repository / "lfs" / "objects" / oid[:2] / oid[2:4] / oid
    place.parent.mkdir(parents=True)
    place.write_bytes(data)


def test_r13_pointers_of_git_lfs_become_their_files_and_nothing_else_does(asking: Asking) -> None:
    oid, text = pointer(b"large")
    stored(asking.repository, oid, b"large")
    files: dict[str, str | bytes | None] = {
        "deep/a.bin": text,
        "no-pointer": text + "more\n",
        ".gitattributes": "* filter=evil\n*.bin filter=lfs\n",
        ".lfsconfig": '[lfs]\n\turl = http://127.0.0.1:1/evil\n[filter "lfs"]\n\tsmudge = touch /tmp/evil\n',
    }
    found = asking.files(asking.order("{lfs: true}", files))
    assert (found["deep/a.bin"], found["no-pointer"]) == ("large", text + "more\n")
    assert asking.files(asking.order("{}", {"n": "1"}))["deep/a.bin"] == text
    lfs.sweep(
        asking.world.master, (asking.world.home / "home" / "lfs" / "keepwork" / oid[:2] / oid).stat().st_mtime + 1
    )
    assert [path.name for path in (asking.world.home / "home" / "lfs").rglob("*") if path.is_file()] == [oid]
    lfs.sweep(asking.world.master, 2**33)
    assert not [path for path in (asking.world.home / "home" / "lfs").rglob("*") if path.is_file()]


@pytest.mark.parametrize(("data", "said"), [(b"othe", "other bytes"), (b"other", "other bytes"), (b"x" * 99, "other")])
def test_other_bytes_than_the_pointer_says_are_never_a_file(asking: Asking, data: bytes, said: str) -> None:
    oid, text = pointer(b"large")
    stored(asking.repository, oid, data)
    with pytest.raises(errors.Refused, match=said) as caught:
        asking.files(asking.order("{lfs: true}", {"a.bin": text}))
    assert caught.value.code == "no-lfs"
    assert not [path for path in (asking.world.home / "home" / "lfs").rglob("*") if path.is_file()]


def test_a_file_that_nobody_pushed_and_one_of_a_terabyte_fail_the_job_by_name(asking: Asking) -> None:
    oid, text = pointer(b"never pushed")
    with pytest.raises(errors.Refused, match=f"{oid[:12]} is not in"):
        asking.files(asking.order("{lfs: true}", {"a.bin": text}))
    huge = f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize 1000000000000\n"
    with pytest.raises(errors.Refused, match="at most 2 GiB"):
        asking.files(asking.order("{lfs: true}", {"a.bin": huge}))


def test_t18_what_belongs_to_a_commit_is_for_jobs_of_its_project_only(asking: Asking) -> None:
    oid, text = pointer(b"large")
    stored(asking.repository, oid, b"large")
    files = {**modules(("lib", "lib", "../libraries/lib.git")), "a.bin": text}
    order = asking.order("{submodules: true}", files, {"lib": asking.sha})
    [one] = asking.get(order, "submodules").json()["items"]
    paths = ("submodules", f"submodules/{one['repository']}/info/refs?service=git-upload-pack", f"lfs/{oid}?size=5")
    other, repository = asking.world.project("other")
    sha = asking.world.push(other, repository, {".keepflow.yml": FLOW.format(checkout="{}")})
    asking.world.send(other, asking.world.pushed(sha))
    stranger = next(found for found in asking.agent.orders() if found.project == "other")
    for path in paths:
        assert asking.get(order, path).status_code == 200
        assert asking.get(order, path, "").status_code == 401
        assert asking.get(order, path, stranger.token).status_code == 404
    refused = f"submodules/{one['repository']}/info/refs?service=git-receive-pack"
    assert asking.get(order, refused).status_code == 403
    assert asking.get(order, f"lfs/{oid}?size=x").status_code == 400
    assert asking.get(stranger, "submodules").json()["items"] == []
    assert asking.get(stranger, f"submodules/{one['repository']}/info/refs?service=git-upload-pack").status_code == 404
    asking.agent.finish(order)
    for path in paths:
        assert asking.get(order, path).status_code == 401, "its attempt has ended"


def test_what_an_agent_keeps_of_git_lfs_and_a_power_cut_tore_is_fetched_again(asking: Asking) -> None:
    oid, text = pointer(b"large")
    stored(asking.repository, oid, b"large")
    assert asking.files(asking.order("{lfs: true}", {"a.bin": text}))["a.bin"] == "large"
    [kept] = asking.place.glob(f"keepwork/*/lfs/{oid}")
    kept.write_bytes(b"lar")
    assert asking.files(asking.order("{lfs: true}", {"n": "1"}))["a.bin"] == "large"
    assert kept.read_bytes() == b"large"
    assert "a.bin" not in asking.files(asking.order("{lfs: true}", {"a.bin": None}))
    assert not kept.exists(), "only what the newest commit has is kept"
