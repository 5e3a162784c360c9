"""Which address `.gitmodules` means, and which of them a project may have."""

from __future__ import annotations

import pytest

from keepflow.core.modules import address, allowed, same_host


@pytest.mark.parametrize(
    ("base", "said", "meant"),
    [
        ("https://g.example/a/app.git", "https://h.example/x.git", "https://h.example/x.git"),
        ("https://g.example/a/app.git", "../lib.git", "https://g.example/a/lib.git"),
        ("https://g.example/a/app.git/", "../../b/lib", "https://g.example/b/lib"),
        ("https://g.example/a/app.git", "./x", "https://g.example/a/app.git/x"),
        ("git@g.example:a/app.git", "../lib.git", "git@g.example:a/lib.git"),
        ("git@g.example:a/app.git", "../../b/lib.git", "git@g.example:b/lib.git"),
        ("/srv/git/app.git", "../lib.git", "/srv/git/lib.git"),
        ("/srv/git/app.git", "../../../../../etc", "/etc"),
    ],
)
def test_an_address_is_meant_as_it_is_or_relative_to_the_repository_it_is_in(base: str, said: str, meant: str) -> None:
    assert address(base, said) == meant


PLACES = ("https://g.example/team", "https://g.example/other/lib.git", "git@g.example:team", "/srv/git")


@pytest.mark.parametrize(
    "url",
    [
        "https://g.example/team/lib.git",
        "https://g.example/team/deep/lib",
        "https://g.example/other/lib.git",
        "git@g.example:team/lib.git",
        "/srv/git/lib.git",
    ],
)
def test_what_the_master_s_file_names_is_allowed(url: str) -> None:
    assert allowed(url, PLACES)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "https://g.example/teams/lib.git",
        "https://g.example/team/../private/lib.git",
        "https://g.example/team/%2e%2e/private",
        "https://g.example/team//private",
        "https://g.example.evil.example/team/lib",
        "https://g.example@evil.example/team/lib",
        "https://evil.example/https://g.example/team/lib",
        "http://g.example/team/lib",
        "https://g.example:444/team/lib",
        "https://g.example/other/lib.git2",
        "git@g.example:private/lib.git",
        "git@g.example:team/../private",
        "file:///srv/git/lib.git",
        "/srv/git/../../etc",
        "/srv/gitlab",
        "ext::sh -c touch% x",
        "-u./payload",
        "ssh://-oProxyCommand=x/team",
    ],
)
def test_cve_2018_17456_and_its_kin_nothing_else_is(url: str) -> None:
    assert not allowed(url, PLACES)
    assert not allowed(url, ())


def test_a_credential_belongs_to_one_server_asked_in_one_way() -> None:
    assert same_host("https://g.example/a", "https://g.example/b/c")
    assert same_host("git@g.example:a", "git@g.example:b")
    for other in (
        "http://g.example/a",
        "https://g.example:8443/a",
        "https://h.example/a",
        "/srv/a",
        "ssh://g.example/a",
    ):
        assert not same_host("https://g.example/a", other)
    assert not same_host("/srv/a", "/srv/a")
