"""The parts of a bootstrap that need no host: addresses, what the service is told, which options are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from keepflow import errors
from keepflow.cli.bootstrap.connection import Address
from keepflow.cli.bootstrap.host import Host, Layout
from keepflow.cli.bootstrap.service import carry_over, service_commands
from keepflow.cli.main import run
from keepflow.tools.processes import Done, failed


@pytest.mark.parametrize(
    ("text", "user", "host"),
    [("root@prod-1", "root", "prod-1"), ("bo.li@10.0.0.7", "bo.li", "10.0.0.7"), ("a@2001:db8::1", "a", "2001:db8::1")],
)
def test_an_account_on_a_host_is_read(text: str, user: str, host: str) -> None:
    assert Address.parse(text, 22) == Address(user, host)


@pytest.mark.parametrize(
    "text", ["prod-1", "@prod-1", "root@", "ro ot@x", "root@-oProxyCommand=id", "a@b@c", "$(id)@x"]
)
def test_what_is_no_account_on_a_host_is_refused(text: str) -> None:
    with pytest.raises(errors.UsageError, match="USER@HOST"):
        Address.parse(text, 22)


def test_a_host_is_named_as_openssh_names_it() -> None:
    assert Address("root", "prod-1").known_as == "prod-1"
    assert Address("root", "prod-1", 2222).known_as == "[prod-1]:2222"


@pytest.mark.parametrize(
    ("enabled", "active", "changed", "verbs"),
    [
        (True, True, False, []),
        (True, True, True, ["restart"]),
        (True, False, False, ["start"]),
        (True, False, True, ["start"]),
        (False, True, False, ["enable"]),
        (False, True, True, ["enable", "restart"]),
        (False, False, True, ["enable", "start"]),
    ],
)
def test_the_service_is_told_only_what_it_needs(enabled: bool, active: bool, changed: bool, verbs: list[str]) -> None:
    commands = service_commands(enabled=enabled, active=active, changed=changed)
    assert commands == [("systemctl", verb, "keepflow-agent") for verb in verbs]


class FakeHost:
    """A host with systemd, as far as the service goes: what runs, what is in use, and which commands came."""

    def __init__(self, *, active: bool = True, runs: str = "old", deploys: bool = False, starts: bool = True) -> None:
        self.active, self.runs, self.deploys, self.starts = active, runs, deploys, starts
        self.link = "venvs/new/bin"
        self.told: list[tuple[str, ...]] = []
        self.user = "root"

    def run(self, argv: tuple[str, ...], *, input: bytes = b"", timeout: float = 60.0, check: bool = True) -> Done:
        code, out = self._answer(argv)
        done = Done(argv, code, out.encode(), b"it says why" if code else b"")
        if check and code:
            raise failed(done)
        return done

    def _answer(self, argv: tuple[str, ...]) -> tuple[int, str]:
        match argv:
            case ("systemctl", "is-enabled" | "is-active" as word, *_):
                return (0 if self.active or word == "is-enabled" else 3), ""
            case ("systemctl", "show", *_):
                return 0, "42\n"
            case ("systemctl", verb, _):
                self.told.append((verb, self.link))
                return (0 if self.starts or self.link != "venvs/new/bin" else 1), ""
            case ("readlink", *options, _):
                return 0, f"/opt/keepflow/{self.link}\n" if options else f"{self.link}\n"
            case ("ls", *_):
                return 0, "kf-shop-main@17@d-1.jsonl\n" if self.deploys else ""
            case ("sh", "-c", _, "sh", "/proc/42/cmdline"):
                return 0, f"/opt/keepflow/venvs/{self.runs}/bin/python\0/opt/keepflow/bin/keepflow\0agent\0run"
            case ("sh", "-c", _, "sh", path) if path.endswith("link.json"):
                return 0, '{"linked": true}'
            case ("sh", "-c", _, "sh", "/opt/keepflow", before):
                self.link = before
                return 0, ""
        raise AssertionError(argv)


def carried(fake: FakeHost, *, changed: bool = False) -> tuple[str, bool]:
    return carry_over(Host(fake), Layout(), "venvs/old/bin", changed=changed)  # type: ignore[arg-type]  # it fits


def test_a_service_that_runs_what_is_in_use_is_left_alone() -> None:
    fake = FakeHost(runs="new")
    assert carried(fake) == ("already so, enabled and active", True)
    assert fake.told == []


def test_a_service_that_a_broken_off_run_left_with_the_old_one_is_restarted() -> None:
    fake = FakeHost(runs="old")
    assert carried(fake) == ("restart", True)
    assert fake.told == [("restart", "venvs/new/bin")]


def test_an_update_waits_for_the_end_of_a_deployment() -> None:
    fake = FakeHost(deploys=True)
    sentence, done = carried(fake, changed=True)
    assert (done, fake.told) == (False, [])
    assert "a deployment is being carried out" in sentence


@pytest.mark.parametrize("active", [True, False])
def test_an_agent_that_does_not_start_is_replaced_by_the_one_before(active: bool) -> None:
    fake = FakeHost(active=active, starts=False)
    with pytest.raises(errors.Refused, match=r"it says why.*The one before is in use again") as caught:
        carried(fake, changed=True)
    assert caught.value.code == "not-started"
    assert fake.told == [("restart" if active else "start", "venvs/new/bin"), ("restart", "venvs/old/bin")]


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ((), "say how to sign in"),
        (("--ask-password",), "nobody can answer here"),
        (("--ssh-agent", "--prefix", "relative"), "--prefix"),
        (("--ssh-agent", "--also", "{place}/agent.yml"), "--config"),
        (("--ssh-agent", "--config", "{place}/wrong.yml"), "masster"),
    ],
)
def test_what_is_missing_or_wrong_is_told_before_anybody_is_dialled(
    options: tuple[str, ...], word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "agent.yml").touch()
    (tmp_path / "wrong.yml").write_text(json.dumps({"masster": "https://ci.example.org", "capabilities": ["run"]}))
    given = [option.format(place=tmp_path) for option in options]
    assert run(["agent", "bootstrap", "root@192.0.2.1", *given]) == 2
    assert word in capsys.readouterr().err
