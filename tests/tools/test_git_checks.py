"""What is a legal commit id, ref and address, against git's own opinion and against attacks."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keepflow import errors
from keepflow.tools.git import check_ref, check_remote_url, check_sha
from keepflow.tools.git.checks import check_file_argument
from tests.hostile import NAMES, URLS


def git_accepts(ref: str) -> bool:
    return subprocess.run(["git", "check-ref-format", ref], check=False).returncode == 0


def we_accept(ref: str) -> bool:
    try:
        return check_ref(ref) == ref
    except errors.UsageError:
        return False


@pytest.mark.parametrize("name", NAMES)
def test_every_hostile_name_is_legal_for_git_and_for_us(name: str) -> None:
    assert git_accepts(f"refs/heads/{name}")
    assert we_accept(f"refs/heads/{name}")


PIECES = (
    *("a", "B", ".", "..", "/", "//", "@", "{", "@{", "~", "^", ":", "?", "*", "[", "]", "\\", " ", "\x7f", "\t"),
    *(".lock", "lock", "-", "--x", "é", "🚀", "\u0085", "$", "`"),
)


@settings(max_examples=400)
@given(st.lists(st.sampled_from(PIECES), max_size=6))
def test_a_ref_is_legal_exactly_when_git_says_so(pieces: list[str]) -> None:
    ref = "refs/heads/" + "".join(pieces)
    assert we_accept(ref) == git_accepts(ref)


@given(st.text(max_size=30))
def test_only_full_names_are_refs(text: str) -> None:
    if not text.startswith("refs/"):
        assert not we_accept(text)


@pytest.mark.parametrize("ref", ["refs/heads/" + "x" * 300, "refs/heads/a\0b", "refs/heads/\ud800", "refs/heads/a\nb"])
def test_refs_that_no_file_or_table_could_hold_are_refused(ref: str) -> None:
    assert not we_accept(ref)


@pytest.mark.parametrize("text", ["", "HEAD", "abc", "A" * 40, "0" * 39, "0" * 41, "0" * 40 + "\n", "--" + "0" * 38])
def test_only_full_lower_case_ids_are_commits(text: str) -> None:
    with pytest.raises(errors.UsageError):
        check_sha(text)


def test_both_hash_lengths_are_commits() -> None:
    assert check_sha("a" * 40) == "a" * 40
    assert check_sha("b" * 64) == "b" * 64


@pytest.mark.parametrize(
    "url",
    [
        "https://github.com/example/keepwork.git",
        "https://git.example.org:8443/a/b",
        "http://127.0.0.1:8080/x.git",
        "https://[2001:db8::1]:443/x",
        "https://dev.azure.com/org/My%20Project/_git/repo",
        "ssh://git@git.example.org/x.git",
        "ssh://git.example.org:2222/~ann/x.git",
        "git@github.com:example/keepwork.git",
        "deploy-user@host_1:repo",
        "git@[::1]:x.git",
    ],
)
def test_ordinary_addresses_are_used(url: str) -> None:
    assert check_remote_url(url) == url


@pytest.mark.parametrize("url", URLS)
def test_a_hostile_address_is_refused_with_a_reason(url: str) -> None:
    with pytest.raises(errors.BadRemote) as caught:
        check_remote_url(url)
    assert len(caught.value.message) < 400
    assert caught.value.message.isprintable()


@pytest.mark.parametrize("url", [url for url in URLS if not url.startswith(("/", "file:///"))])
def test_allowing_local_paths_allows_nothing_else(url: str) -> None:
    with pytest.raises(errors.BadRemote):
        check_remote_url(url, allow_local=True)


def test_local_paths_are_used_only_when_allowed(tmp_path: Path) -> None:
    for url in (str(tmp_path), f"file://{tmp_path}"):
        assert check_remote_url(url, allow_local=True) == url
        with pytest.raises(errors.BadRemote, match="not allowed here"):
            check_remote_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "https://ann:hunter22@git.example.org/x.git",
        "ssh://ann:hunter22@git.example.org/x.git",
        "ftp://ann:hunter22@git.example.org/x.git",
        "ann:hunter22@git.example.org:x.git",
        "https:/ann:hunter22@git.example.org/x.git",
        "https://ann:hunter22@git.example.org/x y",
    ],
)
def test_a_login_in_an_address_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(errors.BadRemote) as caught:
        check_remote_url(url)
    assert "hunter22" not in caught.value.message


def test_a_login_in_an_https_address_is_sent_to_the_token_file() -> None:
    with pytest.raises(errors.BadRemote, match="token_file"):
        check_remote_url("https://ann:hunter22@git.example.org/x.git")


def test_cve_2017_1000117_ssh_dash_host() -> None:
    for url in ("ssh://-oProxyCommand=x/y", "-oProxyCommand=x:y", "git@-oProxyCommand=x:y", "ssh://git@-oX=y/z"):
        with pytest.raises(errors.BadRemote):
            check_remote_url(url, allow_local=True)


def test_cve_2022_24439_ext_transport() -> None:
    for url in ("ext::sh -c id", "ext::id", "fd::3"):
        with pytest.raises(errors.BadRemote):
            check_remote_url(url, allow_local=True)


def test_cve_2023_40267_case_and_spacing_of_ext() -> None:
    for url in ("EXT::id", "Ext::id", " ext::id", "ext ::id"):
        with pytest.raises(errors.BadRemote):
            check_remote_url(url, allow_local=True)


@given(st.text(max_size=60) | st.from_regex(r"(https|ssh|file|git@h)[:/@.\\?#a-z0-9-]{0,30}", fullmatch=True))
def test_whatever_is_accepted_has_no_option_no_space_and_a_known_form(url: str) -> None:
    try:
        check_remote_url(url)
    except errors.BadRemote:
        return
    assert not url.startswith("-")
    assert url.isascii()
    assert not any(character in url for character in " \t\r\n\\'\"`$;|&<>(){}?#")
    assert url.startswith(("https://", "http://", "ssh://")) or "@" in url.partition(":")[0]


@pytest.mark.parametrize("name", ["relative", "/a b", "/a%hb", '/a"b', "/a'b", "/a\\b", "/a\nb", "/$HOME", "/a~"])
def test_files_that_ssh_would_expand_or_split_are_refused(name: str) -> None:
    with pytest.raises(errors.BadRemote):
        check_file_argument(Path(name), "the key")
