"""`keepflow agent bootstrap` against a real sshd: a host is made an agent below a directory of its own."""

from __future__ import annotations

import json
import os
import pwd
import secrets
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from keepflow import errors
from keepflow.cli.bootstrap.connection import Address, Connection, Login, connected
from keepflow.cli.bootstrap.host import Host, Layout
from keepflow.cli.bootstrap.known_hosts import KnownHosts
from keepflow.cli.bootstrap.service import runs_what_is_in_use
from keepflow.cli.bootstrap.wheel import own_wheel
from keepflow.tools.failpoints import VARIABLE
from tests.fakes import FakeMaster, serve_master
from tests.real.parts import need, need_root
from tests.real.sshd import Sshd, new_key, sshd
from tests.real.waiting import wait_until
from tests.real.wheelhouse import fill

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]

USER = "root"
PASSWORD = "correct horse battery"
HOSTILE = 'x\';touch ${HOME}/`id`;"$(id)" \\ \n*~!#&|<>'


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    need_root()
    with sshd(tmp_path_factory.mktemp("sshd")) as running:
        yield running


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheels")
    fill(folder)
    return folder


@pytest.fixture(scope="module")
def master() -> Iterator[FakeMaster]:
    with serve_master() as running:
        yield running


# --- the connection ---------------------------------------------------------------------------------------------------


def address(server: Sshd) -> Address:
    return Address(USER, "127.0.0.1", server.port)


def sign_in(server: Sshd, login: Login, known: KnownHosts, *, right: bool = True) -> None:
    with connected(address(server), login, known, lambda *_: right):
        pass


@pytest.fixture
def connection(server: Sshd, tmp_path: Path) -> Iterator[Connection]:
    known = KnownHosts(tmp_path / "known_hosts")
    login = Login(server.place / "client")
    with connected(address(server), login, known, lambda _kind, shown: shown == server.fingerprint) as made:
        yield made


def test_no_argument_and_no_input_ever_becomes_shell(connection: Connection) -> None:
    done = connection.run(("printf", "%s", HOSTILE))
    assert done.stdout.decode() == HOSTILE
    assert connection.run(("cat",), input=HOSTILE.encode()).stdout.decode() == HOSTILE


def test_both_streams_are_read_however_much_comes_on_them(connection: Connection) -> None:
    script = "head -c 6000000 /dev/zero >&2; head -c 6000000 /dev/zero; cat | wc -c"
    done = connection.run(("sh", "-c", script), input=b"x" * 5_000_000)
    assert len(done.stdout) == 6_000_000 + len("5000000\n")
    assert done.stdout.endswith(b"5000000\n")


def test_a_program_that_does_not_end_is_ended_there(connection: Connection) -> None:
    with pytest.raises(errors.CommandTimeout):
        connection.run(("sh", "-c", "echo $$; exec sleep 4242"), timeout=1)
    listed = connection.run(("ps", "-eo", "args=")).text
    assert "sleep 4242" not in listed.splitlines()


def test_an_error_shows_the_command_and_its_last_words(connection: Connection) -> None:
    with pytest.raises(errors.CommandFailed, match=r"exit code 3:\nno such luck"):
        connection.run(("sh", "-c", "echo no such luck >&2; exit 3"))
    assert connection.run(("sh", "-c", "exit 3"), check=False).exit_code == 3


def test_files_are_laid_whole_under_whatever_name(connection: Connection, tmp_path: Path) -> None:
    host = Host.of(connection)
    place = tmp_path / "a $(id) 'b'"
    host.make_directory(place, 0o750)
    assert host.read(place / "file") is None
    assert host.lay(place / "file", HOSTILE.encode(), 0o640)
    assert not host.lay(place / "file", HOSTILE.encode(), 0o640)
    assert (place / "file").read_text() == HOSTILE
    assert [path.name for path in place.iterdir()] == ["file"]
    assert ((place / "file").stat().st_mode & 0o777, place.stat().st_mode & 0o777) == (0o640, 0o750)


def test_a_host_that_is_not_the_one_meant_is_told_nothing(server: Sshd, tmp_path: Path) -> None:
    known = KnownHosts(tmp_path / "known_hosts")
    login = Login(server.place / "client")
    before = (server.place / "log").read_bytes().count(b"Accepted")
    with pytest.raises(errors.Refused, match="not the one given") as caught:
        sign_in(server, login, known, right=False)
    assert caught.value.code == "host-key"
    assert not known.path.exists(), "a key that was not found right is not kept"
    assert (server.place / "log").read_bytes().count(b"Accepted") == before


def test_a_host_whose_key_has_changed_is_refused(server: Sshd, tmp_path: Path) -> None:
    known = KnownHosts(tmp_path / "known_hosts")
    line = f"[127.0.0.1]:{server.port} {new_key(tmp_path / 'other')}\n"
    known.path.write_text(line)
    with pytest.raises(errors.Refused, match="has changed") as caught:
        sign_in(server, Login(server.place / "client"), known)
    assert (caught.value.code, caught.value.exit_code) == ("host-key-changed", 7)
    assert known.path.read_text() == line


def test_a_host_that_shows_another_kind_of_key_is_refused_too(server: Sshd, tmp_path: Path) -> None:
    known = KnownHosts(tmp_path / "known_hosts")
    subprocess.run(["ssh-keygen", "-q", "-t", "ecdsa", "-N", "", "-C", "", "-f", str(tmp_path / "ecdsa")], check=True)
    known.path.write_text(f"[127.0.0.1]:{server.port} {(tmp_path / 'ecdsa.pub').read_text()}")
    with pytest.raises(errors.Refused, match="another kind of key"):
        sign_in(server, Login(server.place / "client"), known)


def test_only_the_login_that_was_allowed_is_used(server: Sshd, tmp_path: Path) -> None:
    known = KnownHosts(tmp_path / "known_hosts")
    new_key(tmp_path / "stranger")
    for login in (Login(tmp_path / "stranger"), Login(), Login(password="secret")):
        with pytest.raises(errors.AuthError) as caught:
            sign_in(server, login, known)
        assert "secret" not in caught.value.message


def test_the_ssh_agents_keys_are_used_only_when_allowed(
    server: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need("ssh-agent", "ssh-add")
    known, socket = KnownHosts(tmp_path / "known_hosts"), tmp_path / "agent.sock"
    running = subprocess.Popen(["ssh-agent", "-D", "-a", str(socket)], stdout=subprocess.DEVNULL)
    try:
        wait_until(socket.exists, 10, "the SSH agent")
        monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
        subprocess.run(["ssh-add", "-q", str(server.place / "client")], check=True)
        new_key(tmp_path / "stranger")
        with pytest.raises(errors.AuthError):
            sign_in(server, Login(tmp_path / "stranger"), known)
        sign_in(server, Login(agent=True), known)
    finally:
        running.terminate()
        running.wait(10)


def test_a_key_with_a_passphrase_is_opened_and_a_wrong_one_told(server: Sshd, tmp_path: Path) -> None:
    known = KnownHosts(tmp_path / "known_hosts")
    key = tmp_path / "client"
    key.write_bytes((server.place / "client").read_bytes())
    key.chmod(0o600)
    subprocess.run(["ssh-keygen", "-q", "-p", "-P", "", "-N", "hunter2222", "-f", str(key)], check=True)
    with connected(address(server), Login(key, lambda: "hunter2222"), known, lambda *_: True) as made:
        assert made.run(("id", "-u")).text == "0\n"
    with pytest.raises(errors.UsageError, match="no private key that can be used") as caught:
        sign_in(server, Login(key, lambda: "wrong"), known)
    assert "wrong" not in caught.value.message


@pytest.fixture
def account() -> Iterator[str]:
    """An account of this machine, with a password, for the time of a test."""
    need("sudo", "useradd", "chpasswd")
    name = f"kft-{secrets.token_hex(4)}"
    rule = Path("/etc/sudoers.d") / name
    subprocess.run(["useradd", "--create-home", "--shell", "/bin/sh", name], check=True)
    subprocess.run(["chpasswd"], input=f"{name}:{PASSWORD}\n", text=True, check=True)
    yield name
    rule.unlink(missing_ok=True)
    subprocess.run(["userdel", "--remove", "--force", name], capture_output=True, check=False)


@pytest.mark.parametrize(
    ("rule", "password", "root"),
    [
        ("ALL=(ALL) NOPASSWD: ALL", "", True),
        ("ALL=(ALL) ALL", PASSWORD, True),
        ("ALL=(ALL) ALL", "wrong", False),
        ("ALL=(ALL) ALL", "", False),
        ("", PASSWORD, False),
    ],
)
def test_root_is_reached_by_sudo_or_not_at_all(
    account: str, rule: str, password: str, root: bool, tmp_path: Path
) -> None:
    (Path("/etc/sudoers.d") / account).write_text(f"{account} {rule}\n" if rule else "")
    login = Login(password=PASSWORD)
    known = KnownHosts(tmp_path / "known_hosts")
    with (
        sshd(tmp_path, None, "PasswordAuthentication yes") as running,
        connected(Address(account, "127.0.0.1", running.port), login, known, lambda *_: True) as made,
    ):
        if not root:
            with pytest.raises(errors.AuthError, match="not root there") as caught:
                Host.of(made, password)
            assert "wrong" not in caught.value.message
            return
        host = Host.of(made, password)
        for _ in range(2):  # sudo remembers who was asked; what it is told must not become the program's input then
            assert host.run(("cat",), input=b"input\n").stdout == b"input\n"
        assert host.run(("id", "-u")).text == "0\n"
        assert host.lay(tmp_path / "laid", HOSTILE.encode(), 0o600)
        assert (tmp_path / "laid").read_text() == HOSTILE


# --- the whole course -------------------------------------------------------------------------------------------------


@dataclass
class Operator:
    """The machine somebody sits at, and the host that is to become an agent: a directory below its sshd."""

    place: Path
    server: Sshd
    master: FakeMaster
    wheels: Path
    options: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)

    @property
    def prefix(self) -> Path:
        return self.place / "host"

    @property
    def opt(self) -> Path:
        return self.prefix / "opt" / "keepflow"

    def write_config(self, **keys: object) -> Path:
        path = self.place / "agent.yml"
        base = {"master": self.master.url, "capabilities": ["run"], "docker": {"host": f"unix://{self.place}/none"}}
        path.write_text(json.dumps({**base, **keys}))
        return path

    def run(self, *options: str, failpoints: str = "") -> subprocess.CompletedProcess[str]:
        (self.place / "token").write_text(self.master.token("prod-1"))
        argv = [
            *(sys.executable, "-m", "keepflow.cli.main", "agent", "bootstrap", f"{USER}@127.0.0.1"),
            *("--port", str(self.server.port), "--key", str(self.server.place / "client"), "--no-service"),
            *("--prefix", str(self.prefix), "--python", sys.executable, "--wheelhouse", str(self.wheels)),
            *("--config", str(self.place / "agent.yml"), "--token-file", str(self.place / "token")),
            *self.options,
            *options,
        ]
        env = {**os.environ, "XDG_CONFIG_HOME": str(self.place / "config"), **self.env}
        if failpoints:
            env[VARIABLE] = failpoints
        return subprocess.run(
            argv, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=300, check=False
        )

    def seen(self) -> dict[str, tuple[int, int]]:
        """Return every file of the host with the time and the place of its bytes."""
        return {
            str(path): (path.lstat().st_mtime_ns, path.lstat().st_ino)
            for path in self.prefix.rglob("*")
            if not path.is_dir() and "__pycache__" not in path.parts
        }


@pytest.fixture
def operator(tmp_path: Path, server: Sshd, master: FakeMaster, wheels: Path) -> Operator:
    made = Operator(tmp_path, server, master, wheels)
    made.write_config()
    made.options = ("--host-key", server.fingerprint)
    return made


@pytest.fixture
def jobs_user() -> Iterator[str]:
    name = f"kft-{secrets.token_hex(4)}"
    yield name
    subprocess.run(["userdel", name], capture_output=True, check=False)


def test_a_host_becomes_an_agent_though_every_try_was_broken_off_and_the_next_run_changes_nothing(
    operator: Operator, jobs_user: str
) -> None:
    operator.write_config(jobs_user=jobs_user)
    for point in ("bootstrap.uploaded", "bootstrap.installed", "bootstrap.joined"):
        done = operator.run(failpoints=f"{point}=kill")
        assert done.returncode == -9, done.stderr
    joined = dict(operator.master.agents)
    whole = operator.run()
    assert whole.returncode == 0, whole.stdout + whole.stderr
    assert "join        already so, agent prod-1" in whole.stderr
    assert operator.master.agents == joined, "it joined once"
    assert any(line.startswith("ok") and "agent file" in line for line in whole.stdout.splitlines())
    program = str(operator.opt / "bin" / "keepflow")
    assert subprocess.run([program, "version"], capture_output=True, check=True).stdout.startswith(b"keepflow ")
    unit = (operator.prefix / "etc" / "systemd" / "system" / "keepflow-agent.service").read_text()
    assert f"ExecStart={program} agent run --config {operator.prefix}/etc/keepflow/agent.yml" in unit
    assert not (operator.opt / "incoming").exists()

    before = operator.seen()
    again = operator.run()
    assert again.returncode == 0, again.stderr
    assert operator.seen() == before
    steps = {line.split()[0]: line for line in again.stderr.splitlines() if "  " in line}
    assert pwd.getpwnam(jobs_user).pw_uid != 0
    for step in ("package", "unit", "agent.yml", "account", "join"):
        assert "already so" in steps[step], again.stderr
    assert (operator.prefix / "var/lib/keepflow/agent").stat().st_mode & 0o777 == 0o700

    # The agent that was installed is one that works.
    state = operator.prefix / "var/lib/keepflow/agent"
    config = str(operator.prefix / "etc/keepflow/agent.yml")
    with (operator.place / "agent.log").open("wb") as log:
        agent = subprocess.Popen(
            [program, "agent", "run", "--config", config, "--state", str(state)], stdout=log, stderr=log
        )
    try:
        wait_until(lambda: operator.master.connected, 30, f"the link; see {operator.place}/agent.log")
        wait_until(lambda: "link    up" in _status(program, state), 20, "the agent says so")
        known = KnownHosts(operator.place / "config" / "keepflow" / "known_hosts")
        login, layout = Login(operator.server.place / "client"), Layout(str(operator.prefix))
        with connected(address(operator.server), login, known, lambda *_: True) as made:
            assert runs_what_is_in_use(Host.of(made), layout, str(agent.pid))
            assert not runs_what_is_in_use(Host.of(made), layout, str(os.getpid()))
    finally:
        agent.terminate()
        agent.wait(20)

    # Another agent.yml is never overwritten unasked, and files it names are laid beside it.
    operator.write_config(jobs=3, jobs_user=jobs_user)
    refused = operator.run()
    assert (refused.returncode, "--replace-config" in refused.stderr) == (7, True), refused.stderr
    assert operator.seen() == before | {key: value for key, value in operator.seen().items() if str(state) in key}
    hostile = operator.place / "a'$(touch pwned)`id`;b"
    hostile.write_text("x")
    replaced = operator.run("--replace-config", "--also", str(hostile))
    assert replaced.returncode == 0, replaced.stderr
    etc = operator.prefix / "etc" / "keepflow"
    assert json.loads((etc / "agent.yml").read_text())["jobs"] == 3
    assert sorted(path.name for path in etc.iterdir()) == sorted(["agent.yml", "agent.yml.before", hostile.name])
    assert not (Path.home() / "pwned").exists()


def _status(program: str, state: Path) -> str:
    argv = [program, "agent", "status", "--state", str(state)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return done.stdout


def test_nothing_is_done_to_a_host_with_another_key(operator: Operator) -> None:
    operator.options = ("--host-key", f"SHA256:{'A' * 43}")
    done = operator.run()
    assert done.returncode == 7
    assert operator.server.fingerprint in done.stderr
    assert not operator.prefix.exists()


def test_an_unknown_host_is_never_taken_without_a_person(operator: Operator) -> None:
    operator.options = ()
    done = operator.run()
    assert done.returncode == 2
    assert f"--host-key {operator.server.fingerprint}" in done.stderr
    assert not operator.prefix.exists()


def test_a_host_that_was_seen_once_is_known_and_refused_with_another_key(operator: Operator, tmp_path: Path) -> None:
    known = operator.place / "config" / "keepflow" / "known_hosts"
    operator.write_config(jobs=0)
    assert operator.run().returncode == 2, "a wrong agent.yml is told before anybody is dialled"
    assert not known.exists()
    known.parent.mkdir(parents=True)
    known.write_text(f"[127.0.0.1]:{operator.server.port} {new_key(tmp_path / 'other')}\n")
    operator.write_config()
    operator.options = ()
    done = operator.run()
    assert (done.returncode, "has changed" in done.stderr) == (7, True), done.stderr
    assert not operator.prefix.exists()


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (("--prefix", "/tmp/x;id"), "--prefix"),
        (("--prefix", "/tmp/../x"), "--prefix"),
        (("--name", "$(id)"), "--name"),
        (("--host-key", "x"), "SHA256"),
    ],
)
def test_values_that_make_no_sense_are_told_at_once(operator: Operator, options: tuple[str, ...], word: str) -> None:
    done = operator.run(*options)
    assert (done.returncode, word in done.stderr) == (2, True), done.stderr
    assert "Traceback" not in done.stderr


def test_the_wheel_is_the_same_whenever_it_is_made() -> None:
    assert own_wheel() == own_wheel()
