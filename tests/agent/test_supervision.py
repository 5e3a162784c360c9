"""What systemd hears of an agent: ready, alive while it gets on, leaving."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from keepflow.agent.supervision import Supervisor
from tests.agent.processes import AgentProcess


def listener(address: str) -> socket.socket:
    """Listen as systemd does."""
    found = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    found.bind("\0" + address[1:] if address.startswith("@") else address)
    found.settimeout(20)
    return found


def test_an_agent_says_when_it_is_ready_alive_and_leaving(
    make_agent: Callable[..., AgentProcess], tmp_path: Path
) -> None:
    address = str(tmp_path / "notify")
    with listener(address) as systemd:
        agent = make_agent(env={"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "400000"})
        agent.start()
        assert systemd.recv(4096).startswith(b"READY=1\nSTATUS=agent build-1 of http://")
        assert systemd.recv(4096) == b"WATCHDOG=1"
        agent.stop()
        heard = systemd.recv(4096)
        while heard == b"WATCHDOG=1":
            heard = systemd.recv(4096)
        assert heard == b"STOPPING=1"


@pytest.mark.parametrize("name", ["{place}/notify", "@keepflow-test-{pid}"])
def test_both_kinds_of_addresses_are_spoken_to(tmp_path: Path, name: str) -> None:
    import os

    address = name.format(place=tmp_path, pid=os.getpid())
    with listener(address) as systemd:
        supervisor = Supervisor({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "60000000"})
        supervisor.alive()
        assert systemd.recv(100) == b"WATCHDOG=1"
        assert supervisor.every == 30.0


def test_without_systemd_every_word_goes_nowhere(tmp_path: Path) -> None:
    Supervisor({}).ready("x")
    Supervisor({"NOTIFY_SOCKET": str(tmp_path / "nobody")}).stopping()
