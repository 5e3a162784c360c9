"""A bare repository tells the master about its pushes, whatever the branches are called, and never stops a push."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from keepflow.cli.hook import hook
from keepflow.core.events import Event, EventKind, Parsed
from keepflow.errors import UsageError
from keepflow.forges import bare
from tests import hostile

SECRET = b"a secret of this hook"


class Master(ThreadingHTTPServer):
    """Takes deliveries as the master does: verifies, parses, keeps what it got."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.got: list[Parsed] = []
        self.status = 202
        self.answer = b'{"decision_url": "https://ci.example.org/api/7", "page": "https://ci.example.org/deliveries/7"}'

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hooks/shop"

    @property
    def events(self) -> list[Event]:
        return [parsed.event for parsed in self.got if parsed.event]


class _Handler(BaseHTTPRequestHandler):
    server: Master

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        bare.verify(headers, body, SECRET)
        assert bare.delivery_id(headers)
        self.server.got.append(bare.parse(headers, body))
        self.send_response(self.server.status)
        self.end_headers()
        self.wfile.write(self.server.answer)

    def log_message(self, *_: Any) -> None:
        """Keep the test's output clean."""


@pytest.fixture
def master() -> Iterator[Master]:
    with Master() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join(10)


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "hook secret"
    path.write_bytes(SECRET + b"\n")
    path.chmod(0o600)
    return path


class Repositories:
    """A bare repository and a clone of it that pushes."""

    def __init__(self, folder: Path) -> None:
        self.bare, self.work = folder / "shop.git", folder / "work"
        self.git(folder, "init", "--quiet", "--bare", "--initial-branch=dev", str(self.bare))
        self.git(folder, "init", "--quiet", "--initial-branch=dev", str(self.work))
        self.git(self.work, "remote", "add", "origin", str(self.bare))

    def git(self, where: Path, *argv: str, check: bool = True) -> str:
        who = ("-c", 'user.name=Ann "A" Author', "-c", "user.email=ann@example.org")
        env = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "GIT_CONFIG_NOSYSTEM": "1", "REMOTE_USER": "bo"}
        done = subprocess.run(
            ["git", *who, *argv], cwd=where, env=env, capture_output=True, text=True, timeout=60, check=check
        )
        return done.stdout.strip() + done.stderr

    def commit(self, message: str) -> str:
        self.git(self.work, "commit", "--quiet", "--allow-empty", "-m", message)
        return self.git(self.work, "rev-parse", "HEAD")

    def push(self, *refspecs: str) -> str:
        return self.git(self.work, "push", "--force", "origin", *refspecs)

    def connect(self, master: Master, secret: Path) -> None:
        """Install what `hook show` prints, with this Python's keepflow on PATH."""
        shown = CliRunner().invoke(hook, ["show", "--url", master.url, "--secret-file", str(secret)])
        assert shown.exit_code == 0
        command = shlex.join([sys.executable, "-m", "keepflow.cli.main"])
        script = self.bare / "hooks" / "post-receive"
        text = shown.stdout.replace("command -v keepflow ", "command -v sh ")
        script.write_text(text.replace("exec keepflow ", f"exec {command} "))
        script.chmod(0o755)


@pytest.fixture
def repositories(tmp_path: Path) -> Repositories:
    return Repositories(tmp_path)


def send(master_url: str, secret: Path, lines: str, repository: Path, *more: str) -> Result:
    arguments = ["send", "--url", master_url, "--secret-file", str(secret), "--repository", str(repository), *more]
    return CliRunner().invoke(hook, arguments, input=lines)


def test_a_push_reaches_the_master_signed_with_author_message_and_who(
    master: Master, secret: Path, repositories: Repositories
) -> None:
    repositories.connect(master, secret)
    sha = repositories.commit('Mend "it"\n\n$(reboot) — grüße')
    said = repositories.push("dev")
    assert master.events == [
        Event(
            kind=EventKind.PUSH,
            ref="refs/heads/dev",
            sha=sha,
            message='Mend "it"\n\n$(reboot) — grüße',
            author='Ann "A" Author',
            actor="bo",
        )
    ]
    assert "https://ci.example.org/deliveries/7" in said


def test_what_became_of_a_ref_is_told_in_the_same_words_as_by_a_forge(
    master: Master, secret: Path, repositories: Repositories
) -> None:
    first = repositories.commit("one")
    repositories.push("dev")
    repositories.connect(master, secret)
    second = repositories.commit("two")
    repositories.push("dev")
    repositories.git(repositories.work, "tag", "-a", "v1", "-m", "release")
    repositories.push("v1")
    repositories.git(repositories.work, "reset", "--quiet", "--hard", first)
    other = repositories.commit("three")
    repositories.push("dev")
    repositories.push(":v1")
    forward, tag, forced = master.events
    assert (forward.sha, forward.before, forward.forced) == (second, first, False)
    assert (tag.kind, tag.ref, tag.sha) == (EventKind.TAG, "refs/tags/v1", second)
    assert (forced.sha, forced.before, forced.forced) == (other, second, True)
    assert [parsed.word for parsed in master.got] == ["", "", "", "deleted"]


def test_every_hostile_branch_arrives_as_it_is_and_runs_nothing(
    master: Master, secret: Path, repositories: Repositories
) -> None:
    sha = repositories.commit("one")
    lines = "".join(f"{'0' * 40} {sha} refs/heads/{name}\n" for name in hostile.NAMES)
    repositories.push("dev")
    result = send(master.url, secret, lines, repositories.bare)
    assert result.exit_code == 0
    assert [event.branch for event in master.events] == list(hostile.NAMES)
    assert not Path(hostile.CANARY).exists()


def test_a_master_that_is_away_never_stops_a_push(secret: Path, repositories: Repositories) -> None:
    class Away(Master):
        pass

    with Away() as gone:
        repositories.connect(gone, secret)
    sha = repositories.commit("one")
    said = repositories.push("dev")
    assert "does not answer" in said
    assert repositories.git(repositories.bare, "rev-parse", "dev") == sha


@pytest.mark.parametrize("strict", [False, True])
def test_only_a_strict_hook_fails(master: Master, secret: Path, repositories: Repositories, strict: bool) -> None:
    sha = repositories.commit("one")
    repositories.push("dev")
    master.status, master.answer = 500, b"\x1b[31mbroken\nhere"
    more = ["--strict"] if strict else []
    result = send(master.url, secret, f"{'0' * 40} {sha} refs/heads/dev\n", repositories.bare, *more)
    assert result.exit_code == int(strict)
    assert "answered 500: [31mbroken here" in result.stderr


def test_the_words_of_a_refusal_are_passed_on(master: Master, secret: Path, repositories: Repositories) -> None:
    sha = repositories.commit("one")
    repositories.push("dev")
    master.status, master.answer = 404, b'{"title": "Not found", "detail": "there is no project shop"}'
    result = send(master.url, secret, f"{'0' * 40} {sha} refs/heads/dev\n", repositories.bare)
    assert "answered 404: there is no project shop" in result.stderr


@pytest.mark.parametrize(
    "line", ["", "x", "a b c", f"{'0' * 40} {'0' * 40}", f"{'g' * 40} {'0' * 40} refs/heads/x", "\0"]
)
def test_a_line_git_would_not_write_is_told_and_sends_nothing(
    master: Master, secret: Path, repositories: Repositories, line: str
) -> None:
    result = send(master.url, secret, f"{line}\n", repositories.bare, "--strict")
    assert (result.exit_code, master.got) == (1, [])
    assert "not a line of post-receive" in result.stderr


def test_other_refs_are_nobodys_business(master: Master, secret: Path, repositories: Repositories) -> None:
    sha = repositories.commit("one")
    result = send(master.url, secret, f"{'0' * 40} {sha} refs/notes/commits\n", repositories.bare, "--strict")
    assert (result.exit_code, master.got) == (0, [])


def test_a_secret_others_can_read_or_that_is_missing_is_not_used(
    master: Master, secret: Path, repositories: Repositories, tmp_path: Path
) -> None:
    secret.chmod(0o644)
    exposed = send(master.url, secret, "", repositories.bare, "--strict")
    assert (exposed.exit_code, "chmod 600" in exposed.stderr) == (1, True)
    missing = send(master.url, tmp_path / "none", "", repositories.bare, "--strict")
    assert missing.exit_code == 1


def test_what_show_prints_is_quoted(tmp_path: Path) -> None:
    shown = CliRunner().invoke(hook, ["show", "--url", "http://x/$(id)", "--secret-file", "/a b'c"]).stdout
    line = shlex.split(shown.splitlines()[-1])
    assert line == ["exec", "keepflow", "hook", "send", "--url", "http://x/$(id)", "--secret-file", "/a b'c"]
    script = tmp_path / "hook"
    script.write_text(shown)
    assert subprocess.run(["sh", "-n", str(script)], timeout=10).returncode == 0


def test_a_hook_on_a_machine_without_keepflow_says_what_that_means(tmp_path: Path) -> None:
    shown = CliRunner().invoke(hook, ["show", "--url", "http://x/hooks/shop", "--secret-file", "/etc/shop.hook"]).stdout
    for program in ("sh", "id"):
        (tmp_path / program).symlink_to(shutil.which(program) or program)
    ran = subprocess.run(
        ["sh", "-c", shown], env={"PATH": str(tmp_path)}, capture_output=True, text=True, timeout=10, check=True
    )
    assert ran.stderr.startswith("keepflow: not found by ")
    assert ran.stderr.endswith("it looks by itself within minutes\n")


@pytest.mark.parametrize(("url", "secret"), [("http://x/hooks/shop", "shop.hook"), ("x", "/etc/shop.hook")])
def test_a_hook_that_could_not_work_is_not_printed(url: str, secret: str) -> None:
    shown = CliRunner().invoke(hook, ["show", "--url", url, "--secret-file", secret])
    assert isinstance(shown.exception, UsageError)
    assert shown.stdout == ""


def test_a_commit_that_is_not_there_is_told(master: Master, secret: Path, repositories: Repositories) -> None:
    result = send(master.url, secret, f"{'0' * 40} {'a' * 40} refs/heads/dev\n", repositories.bare, "--strict")
    assert (result.exit_code, master.got) == (1, [])


def test_the_forge_of_bare_repositories_reads_what_was_sent() -> None:
    with pytest.raises(UsageError):
        bare.parse({"content-type": "application/json", "x-github-event": "push"}, b"{}")
