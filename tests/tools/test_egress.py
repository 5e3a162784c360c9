"""Where notices may be sent: never to this machine, its network or a metadata service by whatever name."""

from __future__ import annotations

import json
import socket
from typing import Any

import pytest

from keepflow.errors import RemoteError, Undeliverable
from keepflow.tools import egress
from keepflow.tools.http_post import Place, post
from tests.notified import http_server

#: Everything an attacker types to reach what is inside; the names are resolved by the test.
INSIDE = [
    "127.0.0.1", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "127.0.0.1.", "localhost", "0",
    "0.0.0.0",  # noqa: S104 - not a bind
    "10.0.0.1", "10.255.255.255", "172.16.0.1", "172.31.255.1", "192.168.0.1", "192.168.1.254", "100.64.0.1",
    "169.254.169.254", "169.254.170.2", "2852039166", "0xa9fea9fe", "100.100.100.200", "224.0.0.1", "239.1.1.1",
    "255.255.255.255", "240.0.0.1", "192.0.2.1", "198.18.0.1", "203.0.113.7",
    "::1", "::", "fe80::1", "fc00::1", "fd00:ec2::254", "ff02::1", "::ffff:127.0.0.1", "::ffff:169.254.169.254",
    "::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "2002:a9fe:a9fe::", "2001:db8::1",
]  # fmt: skip
#: Of those, what stays closed even where private addresses are allowed.
NEVER = [
    "169.254.169.254", "169.254.170.2", "2852039166", "0xa9fea9fe", "100.100.100.200", "224.0.0.1", "255.255.255.255",
    "0.0.0.0",  # noqa: S104 - not a bind
    "::", "fe80::1", "fd00:ec2::254", "ff02::1", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe",
    "2002:a9fe:a9fe::",
]  # fmt: skip


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every connection that is made, instead of being made."""
    made: list[Any] = []

    class Never(socket.socket):
        def connect(self, address: Any) -> None:
            made.append(address)
            raise ConnectionRefusedError

    monkeypatch.setattr("keepflow.tools.egress.socket.socket", Never)
    return made


@pytest.mark.parametrize("host", INSIDE)
def test_t28_nothing_inside_is_connected_to(host: str, connections: list[Any]) -> None:
    with pytest.raises(RemoteError):
        egress.connect(host, 80, private=False, timeout=1)
    assert connections == []


@pytest.mark.parametrize("host", NEVER)
def test_t28_metadata_stays_closed_where_private_addresses_are_allowed(host: str, connections: list[Any]) -> None:
    with pytest.raises(Undeliverable, match="nothing is ever sent"):
        egress.connect(host, 80, private=True, timeout=1)
    assert connections == []


def test_t28_a_name_is_resolved_once_and_one_bad_address_refuses_it(
    monkeypatch: pytest.MonkeyPatch, connections: list[Any]
) -> None:
    """Rebinding: the second answer would be the machine itself; and a good address does not carry a bad one."""
    asked = []

    def resolve(host: str, port: int, **_: Any) -> list[Any]:
        asked.append(host)
        address = "8.8.8.8" if len(asked) == 1 else "127.0.0.1"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr("keepflow.tools.egress.socket.getaddrinfo", resolve)
    with pytest.raises(RemoteError, match="cannot connect"):
        egress.connect("rebind.example.org", 80, private=False, timeout=1)
    assert (asked, connections) == (["rebind.example.org"], [("8.8.8.8", 80)])

    both = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 80)) for address in ("8.8.8.8", "10.0.0.1")]
    monkeypatch.setattr("keepflow.tools.egress.socket.getaddrinfo", lambda *_, **__: both)
    with pytest.raises(Undeliverable, match="private address"):
        egress.connect("mixed.example.org", 80, private=False, timeout=1)
    assert len(connections) == 1


def test_t28_a_redirect_is_not_followed() -> None:
    with http_server() as inside, http_server() as outside:
        outside.answers = [(302, {"Location": inside.url})]
        answer = post(Place.parse(outside.url), b"{}", {}, timeout=5, private=True)
        assert answer.status == 302
        assert (len(outside.heard), inside.heard) == (1, [])


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd", "gopher://127.0.0.1:25/_HELO", "ftp://example.org/", "//example.org/", "example.org",
        "http://user:pw@example.org/", "https://example.org/\r\nX: y", "https://example.org/ x",
        "https://exa mple.org/", "https://example.org:99999/", "https://[::1/", "https:///path", "https://example.org/#part",
        "https://ex\u00e4mple.org",
    ],
)  # fmt: skip
def test_t28_strange_addresses_are_refused_without_being_repeated(url: str) -> None:
    with pytest.raises(ValueError, match="must") as caught:
        Place.parse(url)
    assert "example.org/x" not in str(caught.value)
    assert url not in str(caught.value)


def test_a_post_brings_its_body_and_headers() -> None:
    with http_server() as ear:
        answer = post(Place.parse(ear.url), json.dumps({"a": 1}).encode(), {"X-Thing": "1"}, timeout=5, private=True)
        assert answer.status == 200
        path, headers, body = ear.heard[0]
        assert (path, headers["x-thing"], body) == ("/hooks/s3cret", "1", b'{"a": 1}')
        assert headers["host"] == ear.url.split("/")[2]


def test_a_server_that_says_nothing_is_given_up_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(RemoteError, match=r"within 0\.2 s"):
        post(Place("127.0.0.1", silent.getsockname()[1], "/", False), b"{}", {}, timeout=0.2, private=True)
