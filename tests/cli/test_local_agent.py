"""The file of the local agent: written once, and with an account for scripts that is not root."""

from __future__ import annotations

import os
import pwd
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from keepflow.cli.local_agent import write_file
from keepflow.config.agent_file import load_agent
from keepflow.config.home import Home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    found = Home.at(tmp_path / "home")
    found.make()
    return found


@pytest.fixture
def account() -> Iterator[str]:
    name = f"kft-{secrets.token_hex(4)}"
    yield name
    subprocess.run(["userdel", name], capture_output=True, check=False)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes accounts")
def test_a_master_of_root_has_an_account_made_for_scripts(home: Home, account: str) -> None:
    write_file(home, "http://127.0.0.1:7070", account)
    file = load_agent(home.local_agent_file.read_text(), str(home.local_agent_file))
    assert file.jobs_user == account
    assert pwd.getpwnam(account).pw_uid != 0
    assert file.docker_for == (), "no flow gets the engine until a person says so"


def test_an_own_address_off_loopback_is_written_down_as_unencrypted_on_purpose(home: Home, account: str) -> None:
    write_file(home, "http://192.0.2.1:7070", account)
    file = load_agent(home.local_agent_file.read_text(), str(home.local_agent_file))
    assert (file.master, file.insecure_http) == ("http://192.0.2.1:7070", True)


def test_a_file_that_is_there_belongs_to_the_person(home: Home, account: str) -> None:
    home.local_agent_file.write_text("mine\n")
    write_file(home, "http://127.0.0.1:7070", account)
    assert home.local_agent_file.read_text() == "mine\n"
    with pytest.raises(KeyError):
        pwd.getpwnam(account)
