"""Which hosts and origins are ours."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepflow.core.hosts import is_ours, same_origin

URL = "https://ci.example.org:8443"


@pytest.mark.parametrize(
    "host",
    [
        "ci.example.org",
        "CI.example.org:8443",
        "ci.example.org:1",
        "localhost",
        "localhost:7070",
        "127.0.0.1",
        "10.1.2.3:80",
        "[::1]",
        "[::1]:7070",
        "[fe80::1]:80",
    ],
)
def test_our_own_names_and_bare_addresses_are_ours(host: str) -> None:
    assert is_ours(host, URL)


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "ci.example.org.evil.example",
        "xci.example.org",
        "localhost.evil.example",
        "127.0.0.1.nip.io",
        "evil@127.0.0.1",
        "127.0.0.1/..",
        "[::1",
        "::1",
        "ci.example.org:",
        "ci.example.org:x",
        "a b",
        "localhost\n",
    ],
)
def test_every_other_name_is_not(host: str) -> None:
    assert not is_ours(host, URL)


@given(st.text(max_size=60))
def test_no_text_breaks_the_check(text: str) -> None:
    assert is_ours(text, URL) in (True, False)
    assert same_origin(text, text) in (True, False)


def test_an_origin_is_the_same_when_it_names_the_host_asked() -> None:
    assert same_origin("http://127.0.0.1:7070", "127.0.0.1:7070")
    assert same_origin("https://CI.example.org", "ci.example.org")
    for origin in ("null", "", "http://127.0.0.1", "http://127.0.0.1:70700", "http://evil.example", "127.0.0.1:7070"):
        assert not same_origin(origin, "127.0.0.1:7070")
    assert not same_origin("http://", "")
