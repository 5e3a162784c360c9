"""The plan of a registry and the files made from it."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from keepflow import errors
from keepflow.tools.registry_plan import Plan


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    (tmp_path / "registry").mkdir()
    return Plan(tmp_path, "127.0.0.1:5000", ("registry.example.org", "10.0.0.7"), tmp_path / "data", "push", "pull")


def test_a_plan_is_remembered(plan: Plan) -> None:
    assert Plan.saved(plan.home) is None
    plan.save()
    assert Plan.saved(plan.home) == plan
    (plan.run / "plan.json").write_text("{}")
    with pytest.raises(errors.UsageError, match=r"plan\.json"):
        Plan.saved(plan.home)


@pytest.mark.parametrize(
    ("listen", "address", "called"),
    [
        ("127.0.0.1:5000", ("127.0.0.1", 5000), "127.0.0.1:5000"),
        ("0.0.0.0:443", ("127.0.0.1", 443), "127.0.0.1:443"),
        ("[::1]:5000", ("::1", 5000), "[::1]:5000"),
        ("[::]:5000", ("::1", 5000), "[::1]:5000"),
        ("10.0.0.7:5000", ("10.0.0.7", 5000), "10.0.0.7:5000"),
    ],
)
def test_it_is_reached_where_it_listens(plan: Plan, listen: str, address: tuple[str, int], called: str) -> None:
    there = replace(plan, listen=listen, names=())
    there.check()
    assert (there.address, there.called) == (address, called)
    assert replace(there, names=("registry.example.org",)).called == f"registry.example.org:{address[1]}"
    assert {"localhost", "127.0.0.1", "::1", address[0]} <= set(there.hosts)


NO_LISTEN = """
5000|:5000|localhost:5000|127.0.0.1|127.0.0.1:0|127.0.0.1:65536|127.0.0.1:5000;|::1:5000|[127.0.0.1]:5000|127.0.0.1:x
127.0.0.1:5000 ssl; server_name x|127.0.0.1:5_000|127.0.0.1: 5000|127.0.0.1:+5000|[fe80::1%x;y]:5000|127.0.0.1:５０００
"""


@pytest.mark.parametrize(
    "listen", ["", "127.0.0.1:50\n00", "127.0.0.1:5000\n", *NO_LISTEN.strip().replace("\n", "|").split("|")]
)
def test_a_listen_that_is_none_is_refused(plan: Plan, listen: str) -> None:
    with pytest.raises(errors.UsageError, match="IP:PORT"):
        replace(plan, listen=listen).check()


@pytest.mark.parametrize("path", ["relative", "/a b", "/a;b", "/a{b", "/a$b", '/a"b', "/a'b", "/a\nb", "/a#b", "/a\\b"])
def test_a_path_that_nginx_would_misread_is_refused(plan: Plan, path: str) -> None:
    with pytest.raises(errors.UsageError, match="path"):
        replace(plan, home=Path(path)).check()
    with pytest.raises(errors.UsageError, match="path"):
        replace(plan, data=Path(path)).check()


def test_a_home_too_deep_for_a_socket_is_refused(plan: Plan) -> None:
    with pytest.raises(errors.UsageError, match="shorter --home"):
        replace(plan, home=Path("/" + "x" * 90)).check()


@pytest.mark.parametrize("user", ["", "a:b", "a b", "-a", "a\nb", "x" * 65, "é"])
def test_a_user_name_that_would_break_a_login_is_refused(plan: Plan, user: str) -> None:
    with pytest.raises(errors.UsageError, match="user name"):
        replace(plan, push_user=user).check()
    with pytest.raises(errors.UsageError, match="user name"):
        replace(plan, pull_user=user).check()


def test_the_two_users_must_differ(plan: Plan) -> None:
    with pytest.raises(errors.UsageError, match="differ"):
        replace(plan, pull_user="push").check()


def test_passwords_are_made_once_private_and_long(plan: Plan) -> None:
    push, pull = plan.password("push"), plan.password("pull")
    assert push != pull
    assert len(base64.urlsafe_b64decode(push + "=")) == 32
    assert plan.password("push") == push
    assert plan.password_file("push").stat().st_mode & 0o777 == 0o600


def test_the_push_file_knows_only_the_push_user_and_no_file_knows_a_password(plan: Plan) -> None:
    logins = plan.logins()
    assert [line.split(":")[0] for line in logins["push.htpasswd"].splitlines()] == ["push"]
    assert [line.split(":")[0] for line in logins["all.htpasswd"].splitlines()] == ["push", "pull"]
    assert plan.logins() == logins
    for role in ("push", "pull"):
        assert plan.password(role) not in "".join(logins.values())
    hashed = base64.b64decode(logins["push.htpasswd"].strip().partition("{SSHA}")[2])
    salted = plan.password("push").encode() + hashed[20:]
    assert hashlib.sha1(salted, usedforsecurity=False).digest() == hashed[:20]


def test_docker_registry_listens_on_the_private_socket_only(plan: Plan) -> None:
    told = json.loads(plan.registry_text())
    assert (told["http"]["net"], told["http"]["addr"]) == ("unix", str(plan.run / "registry.sock"))
    assert told["storage"]["filesystem"] == {"rootdirectory": str(plan.data)}
    assert plan.registry_text() == plan.registry_text()


def test_the_front_lets_only_the_push_file_write(plan: Plan) -> None:
    text = plan.front_text()
    assert "listen 127.0.0.1:5000 ssl;" in text
    writing = text.partition("limit_except GET HEAD {")[2].partition("}")[0]
    assert f"auth_basic_user_file {plan.run}/push.htpasswd;" in writing
    assert "all.htpasswd" not in writing
