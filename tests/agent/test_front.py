"""The front of a host is what its file says when the first service comes, not what it said at the start."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from keepflow.agent.front import Front
from keepflow.agent.host_file import HostFile
from keepflow.errors import UsageError
from keepflow.proxies.nginx import Nginx
from keepflow.proxies.none import NoProxy

_HEAD = "master: https://ci.example.org\ncapabilities: [deploy]\n"


def front(place: Path, more: str = "") -> Front:
    path = place / "agent.yml"
    path.write_text(_HEAD + more)
    return Front(HostFile(path), place / "front")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Return a directory that nginx's workers can pass to."""
    tmp_path.chmod(0o755)
    return tmp_path


def test_a_host_that_begins_without_services_still_gets_its_nginx(place: Path) -> None:
    assert isinstance(front(place).proxy(), Nginx)


def test_it_is_made_once(place: Path) -> None:
    made = front(place)
    assert made.proxy() is made.proxy()


def test_a_host_that_wants_none_gets_none(place: Path) -> None:
    assert isinstance(front(place, "nginx: {mode: none}\n").proxy(), NoProxy)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's nginx has workers of another account")
def test_a_place_the_workers_cannot_pass_is_refused_with_its_name(place: Path) -> None:
    hidden = place / "hidden"
    hidden.mkdir(mode=0o700)
    with pytest.raises(UsageError, match="hidden") as caught:
        front(hidden).proxy()
    assert caught.value.code == "front-hidden"
