"""Git over smart HTTP against a real server, with the real git as the client."""

from __future__ import annotations

import gzip
import subprocess
import time
import urllib.error
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from keepflow.wire import messages
from tests.gateway.conftest import Served, serve
from tests.gateway.played import Link, Played
from tests.processes import hook_headers, push_body
from tests.tools import repositories

Done = subprocess.CompletedProcess[str]


class Lent:
    """A running job: its order and the session that holds it."""

    def __init__(self, served: Served, link: Link, order: messages.RunJob) -> None:
        self.served, self.link, self.order = served, link, order

    @property
    def url(self) -> str:
        return self.served.master.url + self.order.code_path

    def fetch(
        self, directory: Path, what: str, token: str | None = None, **config: str
    ) -> subprocess.CompletedProcess[str]:
        """Fetch with the real git, the token in a header, as agents do."""
        header = f"Authorization: Bearer {self.order.token if token is None else token}"
        return _git(directory, "fetch", "--no-tags", "--depth=1", self.url, what, header=header, **config)


@pytest.fixture(scope="module")
def lent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lent]:
    directory = tmp_path_factory.mktemp("git")
    served = serve(directory)
    other = repositories.bare(directory / "other.git")
    repositories.commit(other, {"secret.py": "1\n"}, ref="dev")
    served.master.apply({"app": {"repo": str(served.repository)}, "other": {"repo": str(other)}})
    link = Played.joined(served.master, "builder").link()
    body = push_body(sha=served.sha)
    assert served.master.ask("POST", "/hooks/app", body, hook_headers(body, "git-1")).status == 202
    order = link.take_order().body
    assert isinstance(order, messages.RunJob)
    yield Lent(served, link, order)
    served.master.close()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    _git(tmp_path, "init", "--quiet", ".")
    return tmp_path


def _git(directory: Path, *arguments: str, header: str = "", **config: str) -> Done:
    settings = {"http.extraHeader": header} if header else {}
    settings |= {key.replace("_", "."): value for key, value in config.items()}
    options = [word for key, value in settings.items() for word in ("-c", f"{key}={value}")]
    env = {**repositories.ENVIRONMENT, "GIT_TERMINAL_PROMPT": "0", "GIT_ALLOW_PROTOCOL": "http"}
    return subprocess.run(
        ["git", *options, *arguments], cwd=directory, env=env, capture_output=True, text=True, timeout=60
    )


def test_the_commit_of_the_job_is_fetched_by_its_id(lent: Lent, checkout: Path) -> None:
    done = lent.fetch(checkout, lent.order.sha)
    assert done.returncode == 0, done.stderr
    shown = _git(checkout, "show", f"{lent.order.sha}:code.py")
    assert shown.stdout == "print(1)\n"


@pytest.mark.parametrize("version", ["0", "1", "2"])
def test_every_version_of_the_protocol_is_spoken(lent: Lent, checkout: Path, version: str) -> None:
    done = lent.fetch(checkout, "refs/heads/dev", protocol_version=version)
    assert done.returncode == 0, done.stderr
    assert _git(checkout, "rev-parse", "FETCH_HEAD").stdout.strip() == lent.order.sha


def test_the_token_is_taken_as_the_password_of_basic_too(lent: Lent, checkout: Path) -> None:
    address = lent.url.replace("http://", f"http://job:{lent.order.token}@")
    done = _git(checkout, "fetch", address, "refs/heads/dev")
    assert done.returncode == 0, done.stderr


def test_a_body_that_git_compressed_is_understood(lent: Lent, checkout: Path) -> None:
    for number in range(60):  # many wants and haves make git compress its request
        repositories.commit(lent.served.repository, {"n": str(number)}, ref=f"branch-{number}")
    mirror = lent.served.master.home / "mirrors" / "app.git"
    repositories.git(mirror, "fetch", "--quiet", str(lent.served.repository), "+refs/heads/*:refs/heads/*")
    header = f"Authorization: Bearer {lent.order.token}"
    done = _git(checkout, "fetch", lent.url, "+refs/heads/*:refs/remotes/x/*", header=header)
    assert done.returncode == 0, done.stderr
    assert _git(checkout, "for-each-ref", "--count=100", "refs/remotes/x").stdout.count("\n") >= 61


def test_no_token_a_wrong_one_and_one_of_another_kind_open_nothing(lent: Lent, checkout: Path) -> None:
    for token in ("", "x", lent.order.token[:-1], lent.order.token + "x", lent.served.master.admin_token):
        done = lent.fetch(checkout, lent.order.sha, token=token)
        assert done.returncode != 0
        assert _git(checkout, "cat-file", "-e", lent.order.sha).returncode != 0
    for path in ("info/refs?service=git-upload-pack", "info/refs"):
        reply = lent.served.master.get(f"{lent.order.code_path}/{path}")
        assert (reply.status, reply.headers["WWW-Authenticate"]) == (401, 'Basic realm="keepflow", Bearer')


def test_t18_a_job_sees_its_own_project_only(lent: Lent, checkout: Path) -> None:
    header = {"Authorization": f"Bearer {lent.order.token}"}
    for name in ("other", "nothing", "APP", "app.git", "..%2fapp", "app%00"):
        reply = lent.served.master.get(f"/git/{name}/info/refs?service=git-upload-pack", header)
        assert reply.status == 404
    address = f"{lent.served.master.url}/git/other"
    token = f"Authorization: Bearer {lent.order.token}"
    assert _git(checkout, "fetch", address, "refs/heads/dev", header=token).returncode != 0


def test_nothing_can_be_pushed(lent: Lent, checkout: Path) -> None:
    header = {"Authorization": f"Bearer {lent.order.token}"}
    master = lent.served.master
    assert master.get(f"{lent.order.code_path}/info/refs?service=git-receive-pack", header).status == 403
    assert master.ask("POST", f"{lent.order.code_path}/git-receive-pack", b"0000", header).status == 404
    assert master.get(f"{lent.order.code_path}/HEAD", header).status == 404
    assert master.get(f"{lent.order.code_path}/objects/info/packs", header).status == 404
    _git(checkout, "commit", "--allow-empty", "-qm", "x")
    token = f"Authorization: Bearer {lent.order.token}"
    assert _git(checkout, "push", lent.url, "HEAD:refs/heads/evil", header=token).returncode != 0
    assert "evil" not in _git(lent.served.repository, "for-each-ref").stdout


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (b"", ""),
        (b"garbage", ""),
        (b"0032want " + b"0" * 40 + b"\n00000009done\n", ""),
        (b"not gzip", "gzip"),
        (gzip.compress(b"x" * 40_000_000), "gzip"),
        (b"ffff" * 5_000_000, ""),
        (b"x", "br"),
    ],
)
def test_a_request_that_makes_no_sense_is_answered_and_leaves_no_process(
    lent: Lent, body: bytes, encoding: str
) -> None:
    headers = {
        "Authorization": f"Bearer {lent.order.token}",
        "Content-Type": "application/x-git-upload-pack-request",
        **({"Content-Encoding": encoding} if encoding else {}),
    }
    before = lent.served.master.rss()
    try:
        reply = lent.served.master.ask("POST", f"{lent.order.code_path}/git-upload-pack", body, headers)
        assert reply.status in (200, 400, 413, 503)
    except urllib.error.URLError:
        assert len(body) > 10_000_000, "only a sender that goes on and on is cut off without an answer"
    assert lent.served.master.rss() - before < 60 * 1024 * 1024
    assert "Traceback" not in lent.served.master.log


def test_many_fetch_at_once(lent: Lent, tmp_path: Path) -> None:
    def fetch(number: int) -> int:
        directory = tmp_path / str(number)
        directory.mkdir()
        _git(directory, "init", "--quiet", ".")
        return lent.fetch(directory, lent.order.sha).returncode

    with ThreadPoolExecutor(24) as pool:
        assert set(pool.map(fetch, range(48))) == {0}


def test_zz_a_token_is_dead_when_its_job_has_ended(lent: Lent, checkout: Path) -> None:
    assert lent.fetch(checkout, lent.order.sha).returncode == 0
    number = lent.link.report(messages.JobFinished(fence=lent.order.fence, at=1, state="succeeded", exit_code=0))
    while lent.link.hear_until(messages.Reported).number < number:
        continue
    began = time.monotonic()
    other = checkout / "other"
    other.mkdir()
    _git(other, "init", "--quiet", ".")
    assert lent.fetch(other, lent.order.sha).returncode != 0
    assert time.monotonic() - began < 10
