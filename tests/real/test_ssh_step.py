"""Steps on another host behind a real sshd: what they find there, whose key it must show, and that nothing stays."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from keepflow.executors.shell import started_at
from keepflow.wire import messages
from tests.agent.conftest import running_master
from tests.agent.processes import AgentProcess, Builder, number_in
from tests.real.boxes import step
from tests.real.sshd import Sshd, new_key, remote, sshd

pytestmark = pytest.mark.real
SECRET = "s3cret-value-of-a-test"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """A real sshd on loopback."""
    with sshd(tmp_path_factory.mktemp("sshd")) as running:
        yield running


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the other host has its checkouts."""
    return tmp_path_factory.mktemp("there")


@pytest.fixture(scope="module")
def builder(server: Sshd, there: Path) -> Iterator[Builder]:
    """An agent that reaches `mac-1`, and `other` under a key that is not the one it shows."""
    place = Path(tempfile.mkdtemp(dir="/var/tmp", prefix="kf-test-"))
    place.chmod(0o755)
    host = remote(server)
    wrong = " ".join(new_key(place / "another").split()[:2])
    said = (
        f"address: 127.0.0.1, port: {host.port}, user: {host.user}, key_file: {host.key_file}, "
        f"directory: {there}, for: [shop/dev]"
    )
    lines = (
        "capabilities: [run]",
        "ssh:",
        f"  mac-1: {{{said}, host_key: {host.host_key}}}",
        f"  other: {{{said}, host_key: {wrong}}}",
    )
    with running_master(place) as (master, sha):
        agent = AgentProcess(master, place, file="".join(f"{line}\n" for line in lines))
        agent.start()
        try:
            yield Builder(master, agent, sha)
        finally:
            agent.close()
            shutil.rmtree(place)


def test_a_step_runs_there_in_a_copy_of_the_checkout(builder: Builder, there: Path) -> None:
    ran = builder.run(
        steps=(
            step("echo here >made"),
            step(
                'cat hello.txt made; test "$PWD" = "$WORKSPACE"; pwd; echo "${#TOKEN} $KEEPFLOW_RUN"; echo x >x',
                ssh="mac-1",
            ),
            step("test ! -e x; exit 7", ssh="mac-1"),
        ),
        env={"TOKEN": f"{SECRET}\n'second line'"},
        mask=(SECRET,),
    )
    assert (ran.end.state, ran.end.exit_code) == ("failed", 7), ran.log
    assert f"\nhello\nhere\n{there}/kf-job-" in ran.log
    assert f"\n{len(SECRET) + 14} 1\n" in ran.log
    assert list(there.iterdir()) == []


def test_what_a_stopped_step_began_there_is_ended_there(builder: Builder, there: Path, tmp_path: Path) -> None:
    pids = tmp_path / "pid", tmp_path / "child"
    fence = builder.send(
        steps=(step(f"echo $$ >{pids[0]}; sleep 600 & echo $! >{pids[1]}; echo began; wait", ssh="mac-1"),),
        env={"TOKEN": SECRET},
    )
    builder.master.await_log(fence, b"\nbegan\n")
    numbers = [number_in(path) for path in pids]
    argv = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert not [line for line in argv if SECRET.encode() in line], "a variable is in a list of processes"
    builder.stop(fence, grace=1)
    assert builder.result(fence).end.state == "cancelled"
    assert [started_at(number) for number in numbers] == [None, None]
    assert list(there.iterdir()) == []


def test_a_connection_that_breaks_leaves_nothing_there(builder: Builder, there: Path, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    fence = builder.send(steps=(step(f"sleep 600 & echo $! >{pid}; echo began; wait", ssh="mac-1"),))
    builder.master.await_log(fence, b"\nbegan\n")
    number = session = number_in(pid)
    while not Path(f"/proc/{session}/comm").read_text().startswith("sshd"):
        session = int(Path(f"/proc/{session}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(session, signal.SIGKILL)
    ran = builder.result(fence)
    assert (ran.end.state, ran.end.exit_code) == ("failed", 255), ran.log
    assert "the connection broke: " in ran.log
    assert "\nwhat went on there was ended\n" in ran.log
    assert started_at(number) is None
    assert list(there.iterdir()) == []


def test_t24_a_host_that_shows_another_key_is_told_nothing(builder: Builder, server: Sshd) -> None:
    """T24: the key is compared before anybody signs in."""
    before = (server.place / "log").read_text().count("Accepted publickey")
    ran = builder.run(steps=(step("echo reached", ssh="other"),))
    assert ran.end.sentence == "the checkout could not be copied to other"
    assert "its host key is not the one of agent.yml" in ran.log
    assert "\nreached\n" not in ran.log
    assert (server.place / "log").read_text().count("Accepted publickey") == before


def test_a_flow_that_the_host_file_does_not_name_is_taken_nowhere(builder: Builder) -> None:
    for more in ({"flow": "test"}, {"trust": "fork"}):
        fence = builder.send(steps=(step("true", ssh="mac-1"),), **more)
        assert builder.master.await_report(messages.JobRefused, fence).code == "no-ssh"
    fence = builder.send(steps=(step("true", ssh="unknown"),))
    assert "to no host 'unknown'" in builder.master.await_report(messages.JobRefused, fence).sentence
