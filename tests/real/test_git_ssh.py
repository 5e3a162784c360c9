"""Git over a real sshd: a pinned host key is obeyed, a changed one is refused (T24), and nothing else is asked."""

from __future__ import annotations

import getpass
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from keepflow import errors
from keepflow.tools.git import Mirror, Remote, init_bare, ls_remote
from tests.real.parts import need
from tests.real.sshd import new_key, sshd
from tests.tools.repositories import bare, commit

pytestmark = pytest.mark.real


@dataclass(frozen=True, slots=True)
class SshHost:
    """An sshd on loopback that serves one bare repository to one key."""

    directory: Path
    port: int
    repository: Path

    def remote(self, known_hosts: str = "known_hosts", key: str = "client") -> Remote:
        return Remote(
            f"ssh://{getpass.getuser()}@127.0.0.1:{self.port}{self.repository}",
            ssh_key_file=self.directory / key,
            known_hosts_file=self.directory / known_hosts,
        )


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshHost]:
    """Run sshd, and write files that know its key, another one, or none."""
    need("ssh")
    place = tmp_path_factory.mktemp("ssh")
    with sshd(place) as server:
        new_key(place / "stranger")
        name = f"[127.0.0.1]:{server.port}"
        (place / "known_hosts").write_text(f"{name} {server.host_key}\n")
        (place / "changed_hosts").write_text(f"{name} {new_key(place / 'other')}\n")
        (place / "empty_hosts").write_text("")
        yield SshHost(place, server.port, bare(place / "repo.git"))


@pytest.fixture
def mirror(tmp_path: Path) -> Mirror:
    init_bare(tmp_path / "mirror.git")
    return Mirror(tmp_path / "mirror.git")


def test_a_repository_is_fetched_with_its_key_and_pinned_host(host: SshHost, mirror: Mirror) -> None:
    sha = commit(host.repository, {"a": "1"})
    assert ls_remote(host.remote()) == {"refs/heads/master": sha}
    mirror.fetch(host.remote())
    assert mirror.resolve("refs/heads/master") == sha
    assert (host.directory / "known_hosts").read_text().count("\n") == 1


def test_t24_a_changed_host_key_is_refused(host: SshHost, mirror: Mirror) -> None:
    with pytest.raises(errors.CommandFailed, match=r"(?i)host key verification failed"):
        mirror.fetch(host.remote("changed_hosts"))


def test_an_unknown_host_is_refused_and_not_learnt(host: SshHost, mirror: Mirror) -> None:
    with pytest.raises(errors.CommandFailed, match=r"(?i)host key"):
        mirror.fetch(host.remote("empty_hosts"))
    assert (host.directory / "empty_hosts").read_text() == ""


def test_a_key_that_is_not_allowed_fails_without_a_prompt(host: SshHost, mirror: Mirror) -> None:
    with pytest.raises(errors.CommandFailed, match="Permission denied"):
        mirror.fetch(host.remote(key="stranger"), timeout=30)
