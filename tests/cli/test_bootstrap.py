"""The parts of a bootstrap that need no host: addresses, what the service is told, which options are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from keepflow import errors
from keepflow.cli.bootstrap.connection import Address
from keepflow.cli.bootstrap.course import service_commands
from keepflow.cli.main import run


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


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ((), "say how to sign in"),
        (("--ask-password",), "nobody can answer here"),
        (("--ssh-agent", "--prefix", "relative"), "--prefix"),
        (("--ssh-agent", "--config", "{place}/wrong.yml"), "masster"),
    ],
)
def test_what_is_missing_or_wrong_is_told_before_anybody_is_dialled(
    options: tuple[str, ...], word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "wrong.yml").write_text(json.dumps({"masster": "https://ci.example.org", "capabilities": ["run"]}))
    given = [option.format(place=tmp_path) for option in options]
    assert run(["agent", "bootstrap", "root@192.0.2.1", *given]) == 2
    assert word in capsys.readouterr().err
