"""Going back through the agent that runs: what is asked, answered, and left to a process of its own."""

from __future__ import annotations

import contextlib
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from keepflow import errors
from keepflow.agent import by_hand
from keepflow.agent.by_hand import Spoken
from keepflow.agent.hand_socket import NAME, HandSocket
from keepflow.agent.state import DEFAULT
from keepflow.cli.entry import STATE, ask_agent
from keepflow.core.states import Phase
from tests.agent.deployed import V1, V2, V3, Host, host, order
from tests.real.waiting import wait_until

__all__ = ["host"]


@pytest.fixture
def ended(host: Host, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A host that served V1 and serves V2, whose agent listens; what it counted as ended."""
    deployer = host.deployer()
    deployer.deploy(order(V1))
    deployer.deploy(order(V2))
    root = deployer.root
    monkeypatch.setenv("KEEPFLOW_AGENT_STATE", str(root))
    ended: list[str] = []

    def made(say: Any) -> Any:
        fresh = host.deployer()
        fresh.tells, fresh.reporter = False, Spoken(say)
        return fresh

    HandSocket(root, made, lambda: ended.append("ended")).start()
    wait_until((root / NAME).exists, 5, "the socket")
    return ended


def test_the_agent_goes_back_and_says_so(host: Host, ended: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert ask_agent(["shop"]) == 0
    assert host.deployer().serving("shop").identity == V1
    said = capsys.readouterr()
    assert V1[:19] in said.out
    assert "switching" in said.err
    assert ended == ["ended"]


@pytest.mark.parametrize("argv", [["shop", f"--to={V1}"], ["--to", V1[:20], "shop"], ["shop", "--instance", "main"]])
def test_the_plain_words_are_understood(host: Host, ended: list[str], argv: list[str]) -> None:
    assert ask_agent(argv) == 0
    assert (host.deployer().serving("shop").identity, ended) == (V1, ["ended"])


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["shop", "other"],
        ["shop", "--help"],
        ["shop", "--to"],
        ["shop", "--config", "/etc/other.yml"],
        ["sh\0op"],
        ["shop", "--to", "a\nb"],
    ],
)
def test_other_words_are_left_to_the_full_command(host: Host, ended: list[str], argv: list[str]) -> None:
    assert ask_agent(argv) is None
    assert (host.deployer().serving("shop").identity, ended) == (V2, [])


@pytest.mark.usefixtures("ended")
def test_what_the_agent_refuses_is_said_by_the_full_command(host: Host) -> None:
    assert ask_agent(["shop", "--to", "sha256:0123"]) is None
    assert ask_agent(["unknown"]) is None
    assert host.deployer().serving("shop").identity == V2
    assert ask_agent(["shop"]) == 0, "it listens on"


def test_who_asks_while_others_do_is_told_at_once_whom_it_waits_for(host: Host, ended: list[str]) -> None:
    """Three at once: a deployment under way, ann who waits for it, and bo who is not left in the dark behind ann."""
    under_way = replace(order(V3), approver="root")
    holder = host.deployer()
    accepted = holder.accept(under_way)
    asking = {name: socket.socket(socket.AF_UNIX) for name in ("ann", "bo")}
    heard = {name: asking[name].makefile("rb") for name in asking}
    try:
        for name, one in asking.items():
            one.settimeout(30)
            one.connect(str(holder.root / NAME))
            one.sendall(f"rollback\0shop\0main\0{V1}\0host:{name}\n".encode())
        for name in asking:
            said = heard[name].readline().decode()
            assert "root is deploying sha256:333333333333 on this host; wait for its end" in said
            assert "this one waits up to 10m" in said
        assert holder.carry_out(accepted).outcome == Phase.DONE
        ends = sorted(heard[name].read().decode().rpartition("\nx")[2].strip() for name in asking)
    finally:
        for one in (*heard.values(), *asking.values()):
            one.close()
    assert host.deployer().serving("shop").identity == V1
    assert ends == ["", "0"], "the other one is left to find out that this serves already"
    wait_until(lambda: len(ended) == 2, 10, "both ends")


def test_whoever_waited_too_long_is_refused_by_name(
    host: Host, ended: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(by_hand, "_PATIENCE", 0.01)
    monkeypatch.setattr(by_hand, "AT_ONCE", 0.01)
    accepted = host.deployer().accept(replace(order(V3), by="host:ann", action="rollback"))
    assert ask_agent(["shop"]) == errors.Refused.exit_code
    assert "host:ann is going back to sha256:333333333333" in capsys.readouterr().err.splitlines()[-1]
    accepted.journal.end()
    accepted.instance.release()
    wait_until(lambda: ended == ["ended"], 10, "the end")


def test_only_the_account_of_the_agent_may_ask(host: Host, ended: list[str]) -> None:
    found = host.deployer().root / NAME
    assert stat.S_IMODE(found.stat().st_mode) == 0o600
    assert stat.S_IMODE(found.parent.stat().st_mode) & 0o077 == 0
    assert ended == []


@pytest.mark.parametrize("sent", [b"", b"\n", b"x" * 5000, b"exec\0a\0b\0c\0d\n", b"\xff\n", b"a\0b\n"])
def test_what_is_no_request_changes_nothing(host: Host, ended: list[str], sent: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as asking:
        asking.connect(str(host.deployer().root / NAME))
        asking.sendall(sent)
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):  # it may hang up on more than it reads
            asking.shutdown(socket.SHUT_WR)
            assert asking.recv(100) == b""
    assert (host.deployer().serving("shop").identity, ended) == (V2, [])
    assert ask_agent(["shop"]) == 0, "it listens on"


@pytest.fixture
def dying(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An agent that says a phase and is gone."""
    monkeypatch.setenv("KEEPFLOW_AGENT_STATE", str(tmp_path))
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / NAME))
        listening.listen()

        def die() -> None:
            asking, _ = listening.accept()
            with asking:
                asking.recv(1000)
                asking.sendall(b"e  switching\n")

        thread = threading.Thread(target=die)
        thread.start()
        yield
        thread.join(5)


@pytest.mark.usefixtures("dying")
def test_an_agent_that_ends_meanwhile_leaves_it_to_a_process_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert ask_agent(["shop"]) is None
    assert capsys.readouterr().err == "  switching\n"


def test_it_is_looked_for_where_agents_keep_their_state() -> None:
    assert Path(STATE) == DEFAULT


def test_without_an_agent_nothing_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEEPFLOW_AGENT_STATE", str(tmp_path))
    assert ask_agent(["shop"]) is None


def test_nothing_slow_is_loaded_before_the_agent_is_asked() -> None:
    code = "import sys, keepflow.cli.entry; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert not {"click", "pydantic", "socket", "typing", "json", "keepflow.cli.main"} & set(loaded.stdout.split())
