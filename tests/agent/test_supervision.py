"""What systemd hears of an agent: ready, alive while it gets on, leaving."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from keepflow.agent.pulse import Pulse
from keepflow.agent.supervision import Supervisor
from keepflow.tools.failpoints import VARIABLE
from keepflow.wire.messages import Refused
from tests.agent.processes import AgentProcess
from tests.fakes import FakeMaster


def listener(address: str) -> socket.socket:
    """Listen as systemd does."""
    found = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    found.bind("\0" + address[1:] if address.startswith("@") else address)
    found.settimeout(20)
    return found


def heard_until(systemd: socket.socket, wanted: bytes) -> list[bytes]:
    """Return what was said until something that begins so was."""
    heard = [systemd.recv(4096)]
    while not heard[-1].startswith(wanted):
        heard.append(systemd.recv(4096))
    return heard


def test_an_agent_says_when_it_is_ready_alive_linked_and_leaving(
    make_agent: Callable[..., AgentProcess], tmp_path: Path
) -> None:
    address = str(tmp_path / "notify")
    with listener(address) as systemd:
        agent = make_agent(env={"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "400000"})
        agent.start()
        assert systemd.recv(4096).startswith(b"READY=1\nSTATUS=agent build-1 of http://")
        heard_until(systemd, b"STATUS=agent build-1, linked to http://")
        heard_until(systemd, b"WATCHDOG=1")
        agent.stop()
        assert set(heard_until(systemd, b"STOPPING=1")) <= {b"WATCHDOG=1", b"STOPPING=1"}


def test_a_lost_link_is_told_with_its_reason_and_is_no_reason_to_be_restarted(
    make_agent: Callable[..., AgentProcess], tmp_path: Path, master: FakeMaster
) -> None:
    address = str(tmp_path / "notify")
    with listener(address) as systemd:
        agent = make_agent(env={"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "400000"})
        agent.start()
        heard_until(systemd, b"STATUS=agent build-1, linked to")
        assert "link    up" in agent.cli("status").stdout
        master.refuses = Refused(code="revoked", sentence="this agent was revoked")
        master.cut()
        why = f"no link to {master.url}: this agent was revoked"
        heard_until(systemd, f"STATUS=agent build-1, {why}".encode())
        heard_until(systemd, b"WATCHDOG=1")
        assert why in agent.cli("status").stdout


def test_an_agent_that_hangs_says_no_more_that_it_is_alive(
    make_agent: Callable[..., AgentProcess], tmp_path: Path
) -> None:
    address = str(tmp_path / "notify")
    with listener(address) as systemd:
        armed = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "200000", VARIABLE: "link.turn=sleep:3600"}
        agent = make_agent(env=armed)
        agent.start()
        heard_until(systemd, b"STATUS=agent build-1, linked to")
        systemd.settimeout(2)  # twenty times what systemd would wait
        with pytest.raises(TimeoutError):
            heard_until(systemd, b"never said")
        assert agent.process is not None
        assert agent.process.poll() is None, "the process is there, and only systemd can tell that it hangs"


def test_an_agent_whose_look_at_the_services_hangs_says_so_and_no_more_that_it_is_alive(
    make_agent: Callable[..., AgentProcess], tmp_path: Path
) -> None:
    """The link turns all the while: heartbeats would go on telling what served before."""
    address = str(tmp_path / "notify")
    with listener(address) as systemd:
        armed = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "200000", VARIABLE: "tend.turn=sleep:3600"}
        agent = make_agent(env=armed, file="capabilities: [deploy]\n")
        agent.start()
        heard_until(systemd, b"WATCHDOG=1")
        heard_until(systemd, b"STATUS=the look at what serves hangs")
        systemd.settimeout(2)
        with pytest.raises(TimeoutError):
            heard_until(systemd, b"never said")


def test_a_part_hangs_when_it_is_silent_for_longer_than_it_said_and_not_when_it_rests() -> None:
    now = [100.0]
    pulse = Pulse(lambda: now[0])
    pulse.beat("look", 5)
    pulse.beat("deployment", 60)
    now[0] += 6
    assert pulse.hung() == ["look"]
    pulse.beat("look", 5)
    assert pulse.hung() == []
    now[0] += 61
    assert pulse.hung() == ["deployment", "look"]
    pulse.rest("deployment")
    pulse.rest("never heard of")
    assert pulse.hung() == ["look"]


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
