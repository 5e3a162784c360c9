"""The registry client against a fake registry that writes down what it was sent."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepflow import errors
from keepflow.tools.challenges import Address, TokenServices, parse_challenge, token_in
from keepflow.tools.registry import Registry
from tests.real.waiting import free_port
from tests.tools.fake_registry import DIGEST, MANIFEST, OCI, Answer, FakeRegistry, Seen, fake_registry, holds_app, needs

BASIC = "Basic " + base64.b64encode(b"pull:hunter22").decode()


@pytest.fixture
def server() -> Iterator[FakeRegistry]:
    with fake_registry() as running:
        yield running


def client(server: FakeRegistry, login: bool = True) -> Registry:
    user, password = ("pull", "hunter22") if login else (None, None)
    return Registry(server.address, user, password, plain_http=True)


def test_a_tag_and_a_digest_are_asked_with_head_and_all_four_types(server: FakeRegistry) -> None:
    registry = client(server)
    assert registry.digest("app", "1") == DIGEST
    assert registry.digest("app", DIGEST) == DIGEST
    assert {request.method for request in server.seen} == {"HEAD"}


def test_what_does_not_exist_has_no_digest(server: FakeRegistry) -> None:
    registry = client(server)
    assert registry.digest("app", "2") is None
    assert registry.digest("other/app", "1") is None
    assert registry.exists("app", "1")
    assert not registry.exists("app", "2")


def test_a_manifest_comes_with_the_hash_of_its_bytes(server: FakeRegistry) -> None:
    manifest = client(server).manifest("app", "1")
    assert (manifest.digest, manifest.media_type, manifest.body) == (DIGEST, OCI, MANIFEST)
    with pytest.raises(errors.RegistryError) as caught:
        client(server).manifest("app", "2")
    assert caught.value.code == "missing"


def test_a_registry_that_states_no_digest_has_it_computed(server: FakeRegistry) -> None:
    server.answer = lambda _: (200, {}, MANIFEST)
    assert client(server).digest("app", "1") == DIGEST


@pytest.mark.parametrize("stated", ["sha256:" + "0" * 64, "sha256:short", "md5:x", "<script>"])
def test_another_digest_than_the_one_asked_for_is_never_taken(server: FakeRegistry, stated: str) -> None:
    server.answer = lambda _: (200, {"Docker-Content-Digest": stated}, MANIFEST)
    with pytest.raises(errors.RegistryError):
        client(server).digest("app", DIGEST)
    with pytest.raises(errors.RegistryError):
        client(server).manifest("app", "1")


def test_changed_bytes_of_a_manifest_are_noticed(server: FakeRegistry) -> None:
    server.answer = lambda _: (200, {"Docker-Content-Digest": DIGEST}, MANIFEST + b" ")
    for reference in ("1", DIGEST):
        with pytest.raises(errors.RegistryError):
            client(server).manifest("app", reference)


def test_a_login_is_sent_only_after_the_registry_asks(server: FakeRegistry) -> None:
    registry = client(server)
    registry.ping()
    assert server.logins == []
    server.answer = needs(BASIC, 'Basic realm="registry"')
    assert registry.digest("app", "1") == DIGEST
    assert server.logins == [BASIC]
    assert registry.digest("app", "1") == DIGEST
    assert [request.authorization for request in server.seen[-1:]] == [BASIC]


def test_a_refused_login_names_the_user_and_not_the_password(server: FakeRegistry) -> None:
    server.answer = lambda _: (401, {"WWW-Authenticate": 'Basic realm="x"'}, b"")
    with pytest.raises(errors.RegistryError, match="'pull'") as caught:
        client(server).ping()
    assert caught.value.code == "unauthorised"
    assert "hunter22" not in caught.value.message
    with pytest.raises(errors.RegistryError, match="none fits") as caught:
        client(server, login=False).ping()
    assert caught.value.code == "unauthorised"


def test_a_token_of_the_registrys_own_host_is_fetched_and_kept(server: FakeRegistry) -> None:
    challenge = f'Bearer realm="{server.url}/token",service="registry",scope="repository:evil:push"'

    def answer(request: Seen) -> Answer:
        if request.path.startswith("/token"):
            assert request.authorization == BASIC
            assert request.path == "/token?service=registry&scope=repository%3Aapp%3Apull"
            return 200, {}, json.dumps({"token": "abc.def"}).encode()
        return needs("Bearer abc.def", challenge)(request)

    server.answer = answer
    registry = client(server)
    assert registry.digest("app", "1") == DIGEST
    assert registry.digest("app", DIGEST) == DIGEST
    assert [request.path.startswith("/token") for request in server.seen] == [False, True, False, False]


def test_an_expired_token_is_fetched_again(server: FakeRegistry) -> None:
    valid = {"token": "one"}

    def answer(request: Seen) -> Answer:
        if request.path.startswith("/token"):
            return 200, {}, json.dumps({"access_token": valid["token"]}).encode()
        return needs(f"Bearer {valid['token']}", f'Bearer realm="{server.url}/token",service="r"')(request)

    server.answer = answer
    registry = client(server)
    assert registry.exists("app", "1")
    valid["token"] = "two"
    assert registry.exists("app", "1")


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"token":7}', b'{"token":"a\\r\\nX: y"}', b"\xff", b"[" * 5000])
def test_a_token_service_that_gives_no_token_is_an_intentional_error(server: FakeRegistry, body: bytes) -> None:
    challenge = f'Bearer realm="{server.url}/token",service="r"'
    server.answer = lambda request: (
        (200, {}, body) if request.path.startswith("/token") else (401, {"WWW-Authenticate": challenge}, b"")
    )
    with pytest.raises(errors.RegistryError) as caught:
        client(server).digest("app", "1")
    assert caught.value.code == "unauthorised"


def evil_realms(registry: FakeRegistry, thief: FakeRegistry) -> list[str]:
    host, port = registry.address.split(":")
    return [
        f"{thief.url}/token",
        f"{registry.url}@{thief.address}/token",
        f"http://{host}:{port}\\@{thief.address}/token",
        f"http://{host}:{port}#@{thief.address}/token",
        f"http://{host}:{port}%2f@{thief.address}/token",
        f"http://user:x@{thief.address}/token",
        f"//{thief.address}/token",
        f"HTTP://{thief.address}/token",
        f" {thief.url}/token",
        f"{registry.url}/token\r\nHost: {thief.address}",
        f"http://[::ffff:127.0.0.1]:{thief.address.split(':')[1]}/token",
        f"http://2130706433:{thief.address.split(':')[1]}/token",
        "file:///etc/passwd",
        "http://169.254.169.254/latest/meta-data/",
        "https://evil.example/token",
        "",
    ]


@pytest.mark.parametrize("number", range(16))
def test_t23_no_evil_realm_is_ever_asked(server: FakeRegistry, number: int) -> None:
    with fake_registry() as thief:
        realm = evil_realms(server, thief)[number]
        challenge = f'Bearer realm="{realm}",service="r",scope="x"'.replace("\r\n", "%0d%0a")
        server.answer = lambda _: (401, {"WWW-Authenticate": challenge}, b"")
        with pytest.raises(errors.RegistryError) as caught:
            client(server).digest("app", "1")
        assert caught.value.code == "unauthorised"
        assert thief.seen == []
        assert server.logins == []


def test_cve_2020_15157_no_login_for_a_host_named_in_a_challenge(server: FakeRegistry) -> None:
    with fake_registry() as thief:
        server.answer = lambda _: (401, {"WWW-Authenticate": f'Bearer realm="{thief.url}/t",service="r"'}, b"")
        for login in (True, False):
            with pytest.raises(errors.RegistryError, match="token_hosts"):
                client(server, login).manifest("app", "1")
        assert thief.seen == []


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed(server: FakeRegistry, status: int) -> None:
    with fake_registry() as thief:
        server.answer = lambda request: (
            (401, {"WWW-Authenticate": 'Basic realm="x"'}, b"")
            if not request.authorization
            else (status, {"Location": f"{thief.url}{request.path}"}, b"")
        )
        with pytest.raises(errors.RegistryError, match="redirects") as caught:
            client(server).digest("app", "1")
        assert caught.value.code == "unreachable"
        assert thief.seen == []


def test_no_redirect_of_a_token_service_is_followed(server: FakeRegistry) -> None:
    with fake_registry() as thief:
        challenge = f'Bearer realm="{server.url}/token",service="r"'
        server.answer = lambda request: (
            (302, {"Location": f"{thief.url}/token"}, b"")
            if request.path.startswith("/token")
            else (401, {"WWW-Authenticate": challenge}, b"")
        )
        with pytest.raises(errors.RegistryError):
            client(server).digest("app", "1")
        assert thief.seen == []


def test_a_named_token_host_may_be_asked_and_only_over_tls() -> None:
    services = TokenServices(Address.parse("registry.example.org:5000", "https"), ["gitlab.example.org"])
    assert services.url({"realm": "https://gitlab.example.org/jwt/auth"}) == "https://gitlab.example.org:443/jwt/auth"
    assert services.url({"realm": "https://registry.example.org/token"}) == "https://registry.example.org:443/token"
    for realm in (
        "http://gitlab.example.org/jwt/auth",
        "https://gitlab.example.org:8443/jwt/auth",
        "https://gitlab.example.org.evil.example/jwt/auth",
        "https://registry.example.org:5001/token",
        "http://registry.example.org:5000/token",
    ):
        with pytest.raises(errors.RegistryError):
            services.url({"realm": realm})


def test_a_netrc_of_the_account_never_answers(
    server: FakeRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login ann password hunter22\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    client(server, login=False).ping()
    assert server.logins == []


def test_a_password_never_goes_over_plain_http_to_another_machine() -> None:
    for address in ("registry.example.org:5000", "10.0.0.1:5000", "localhost.evil.example", "127.0.0.1.evil.example"):
        with pytest.raises(errors.UsageError, match="plain HTTP"):
            Registry(address, "push", "x", plain_http=True)
    for address in ("localhost:5000", "127.0.0.1:5000", "[::1]:5000"):
        Registry(address, "push", "x", plain_http=True)


def test_a_registry_that_is_not_there_is_unreachable() -> None:
    with pytest.raises(errors.RegistryError, match="refused") as caught:
        Registry(f"127.0.0.1:{free_port()}").ping()
    assert caught.value.code == "unreachable"


def test_a_registry_without_tls_is_told_apart(server: FakeRegistry) -> None:
    with pytest.raises(errors.RegistryError) as caught:
        Registry(server.address).ping()
    assert caught.value.code in ("certificate", "unreachable")


@pytest.mark.parametrize("status", [400, 429, 500, 503])
def test_other_answers_are_errors_that_tell_the_status(server: FakeRegistry, status: int) -> None:
    server.answer = lambda _: (status, {}, b"")
    with pytest.raises(errors.RegistryError, match=str(status)) as caught:
        client(server).digest("app", "1")
    assert caught.value.code == "unreachable"


def test_a_manifest_without_end_is_not_read_to_its_end(server: FakeRegistry) -> None:
    server.answer = lambda _: (200, {}, b"x" * 5_000_000)
    with pytest.raises(errors.RegistryError, match="more than"):
        client(server).manifest("app", "1")


def test_an_answer_that_breaks_off_is_unreachable(server: FakeRegistry) -> None:
    server.answer = lambda _: (200, {"Content-Length": "9999", "Connection": "close"}, b"x")
    with pytest.raises(errors.RegistryError) as caught:
        client(server).manifest("app", "1")
    assert caught.value.code == "unreachable"


@pytest.mark.parametrize("address", ["", "-x", "a/b", "a b", "http://a", "a:b", "a:99999", "u@a", "a\n", "[::1", "a#b"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(errors.UsageError):
        Registry(address)


@pytest.mark.parametrize(
    ("repository", "reference"),
    [
        ("../../_catalog", "1"),
        ("app/../x", "1"),
        ("App", "1"),
        ("app?x=", "1"),
        ("app", "../1"),
        ("app", "1?x"),
        ("app", ""),
        ("", "1"),
        ("app", "sha256:x"),
        ("app", "sha256:" + "A" * 64),
        ("a" * 300, "1"),
        ("app", "t" * 200),
        ("app", "1\n"),
    ],
)
def test_a_name_that_would_change_the_path_is_refused(server: FakeRegistry, repository: str, reference: str) -> None:
    with pytest.raises(errors.UsageError):
        client(server).digest(repository, reference)
    assert server.seen == []


@given(st.text())
def test_any_challenge_can_be_read(header: str) -> None:
    kind, parameters = parse_challenge(header)
    assert kind == kind.lower()
    assert all(isinstance(value, str) for value in parameters.values())


@given(st.binary())
def test_any_answer_of_a_token_service_can_be_read(body: bytes) -> None:
    assert token_in(body) is None or token_in(body)


def test_the_fake_registry_converts_for_whoever_does_not_ask_right() -> None:
    """The trap these tests guard: without the full Accept list the digest is another one."""
    assert holds_app(Seen("HEAD", "/v2/app/manifests/1", {}))[1]["Docker-Content-Digest"] != DIGEST
