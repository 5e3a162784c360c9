"""The second host stands for another machine, so it must behave as one; and nothing of it may stay behind."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.real import engines
from tests.real.engines import Engine
from tests.real.hosts import Hopeless, Listener, SecondHost, free_port, sweep, wait_until
from tests.real.leftovers import STATE, alive
from tests.real.load_process import ROOT
from tests.real.parts import need, need_root

pytestmark = pytest.mark.real


def connects(address: str, port: int, seconds: float = 1.0) -> bool:
    """Say whether a TCP connection can be made."""
    try:
        socket.create_connection((address, port), timeout=seconds).close()
    except OSError:
        return False
    return True


def serve(host: SecondHost, port: int, log: Path) -> subprocess.Popen[bytes]:
    """Start a small web server on a host and wait until it answers there."""
    server = host.popen("busybox", "httpd", "-f", "-p", f"{host.address}:{port}", "-h", "/usr/share", log=log)
    wait_until(lambda: connects(host.address, port), 5, f"a server on {host.name}")
    return server


def test_a_fresh_host_has_no_way_in(second_host: SecondHost) -> None:
    assert second_host.listening() == []
    assert not connects(second_host.address, 22)


def test_what_listens_on_a_host_is_seen_and_reached_from_outside(second_host: SecondHost, log_dir: Path) -> None:
    server = serve(second_host, 8088, log_dir / "httpd.log")
    try:
        assert second_host.listening() == [Listener("tcp", second_host.address, 8088, "busybox")]
        assert connects(second_host.address, 8088)
    finally:
        server.terminate()
        server.wait(timeout=5)


def test_a_host_reaches_us_and_nobody_else(second_host: SecondHost) -> None:
    with socket.create_server((second_host.gateway, 0)) as ours:
        port = ours.getsockname()[1]
        assert second_host.run("bash", "-c", f"exec 3<>/dev/tcp/{second_host.gateway}/{port}").returncode == 0
    assert second_host.run("ip", "route", "get", "192.0.2.1").returncode != 0


def test_the_engine_of_a_host_is_its_own(second_host: SecondHost, engine: Engine) -> None:
    image = second_host.engine.base_image("busybox")
    second_host.engine.docker("run", "--detach", "--init", "--name", "kft-own", image, "sleep", "600")
    try:
        assert "kft-own" in second_host.engine.docker("container", "ls", "--format", "{{.Names}}").split()
        assert "kft-own" not in engine.docker("container", "ls", "--format", "{{.Names}}").split()
        assert second_host.engine.docker("exec", "kft-own", "hostname", "-i").startswith("10.223.")
    finally:
        second_host.engine.docker("rm", "--force", "kft-own")


def test_a_host_keeps_its_own_files_to_itself(second_host: SecondHost) -> None:
    done = second_host.run("sh", "-c", "echo mine >/etc/keepflow/agent.yml")
    assert done.returncode == 0, done.stderr
    assert not Path("/etc/keepflow/agent.yml").exists() or Path("/etc/keepflow/agent.yml").read_text() != "mine\n"
    assert second_host.path("/etc/keepflow/agent.yml").read_text() == "mine\n"
    assert second_host.path("/usr/share") == Path("/usr/share")


def test_a_cut_cable_is_silent_and_a_mended_one_carries_on(second_host: SecondHost, log_dir: Path) -> None:
    server = serve(second_host, 8089, log_dir / "httpd.log")
    try:
        with socket.create_connection((second_host.address, 8089), timeout=1) as connection:
            second_host.cut()
            connection.sendall(b"GET /doc-base HTTP/1.0\r\n\r\n")
            with pytest.raises(TimeoutError):
                connection.recv(1)
            assert not connects(second_host.address, 8089, seconds=0.3)
            second_host.mend()
            connection.settimeout(10)
            assert connection.recv(4) == b"HTTP", "what was sent into the cut cable arrives when it is whole again"
    finally:
        second_host.mend()
        server.terminate()
        server.wait(timeout=5)


def test_two_hosts_live_side_by_side_and_one_leaves_nothing_behind(second_host: SecondHost) -> None:
    with SecondHost("twin") as twin:
        assert (twin.address, twin.name) != (second_host.address, second_host.name)
        twin.start_engine().base_image("busybox")
        twin.engine.docker("run", "--detach", "--init", "--name", "left", "keepflow-test/busybox", "sleep", "600")
        inside = int(twin.engine.docker("inspect", "--format", "{{.State.Pid}}", "left"))
        cable = f"{twin._cable}o"
        assert Path("/sys/class/net", cable).exists()
    assert not alive(inside)
    assert not twin.directory.exists()
    assert not Path("/run/netns", twin.name).exists()
    assert not Path("/sys/class/net", cable).exists()
    assert second_host.engine.docker("version", "--format", "{{.Server.Version}}")


BROKEN_OFF = """
import signal
from tests.real.hosts import SecondHost
host = SecondHost("gone")
host.start_engine().base_image("busybox")
host.engine.docker("run", "--detach", "--init", "keepflow-test/busybox", "sleep", "600")
inside = host.engine.docker("inspect", "--format", "{{.State.Pid}}", host.engine.docker("ps", "--quiet"))
print(host.name, inside, flush=True)
signal.pause()
"""


def test_what_a_killed_run_left_is_swept_and_what_a_living_one_uses_is_not(second_host: SecondHost) -> None:
    run = subprocess.Popen([sys.executable, "-c", BROKEN_OFF], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert run.stdout is not None
    with run.stdout:
        name, inside = run.stdout.readline().split()
    assert name not in sweep(), "a host whose maker lives must not be swept"
    assert alive(int(inside))
    run.send_signal(signal.SIGKILL)
    run.wait(timeout=10)
    sweep()
    assert not alive(int(inside))
    assert not (STATE / name).exists()
    assert name not in subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    assert second_host.run("true").returncode == 0


def test_an_engine_that_cannot_start_says_why(tmp_path: Path) -> None:
    need("dockerd", "iptables")
    need_root()
    (tmp_path / "data").write_text("where a directory must be")
    with pytest.raises(Hopeless, match="points to a file"):
        Engine(tmp_path).start()


KILLED = """
import os, signal, sys
from pathlib import Path
from tests.real import engines
engines.SYSTEM_SOCKET = Path("/nonexistent")
engines.Engine.primary(Path(sys.argv[1]), prefix=tuple(sys.argv[2:]))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_an_engine_left_by_a_killed_run_is_used_on_and_ended_by_its_last_user(monkeypatch: pytest.MonkeyPatch) -> None:
    need("dockerd", "docker", "iptables", "ip", "nsenter", "unshare")
    need_root()
    monkeypatch.setattr(engines, "SYSTEM_SOCKET", Path("/nonexistent"))
    with SecondHost("alone") as host:  # an engine in our own network would meet the one that runs there
        directory = host.directory / "e"
        killed = subprocess.run([sys.executable, "-c", KILLED, str(directory), *host.prefix], cwd=ROOT, check=False)
        assert killed.returncode == -signal.SIGKILL
        assert engines.answers(directory / "docker.sock")
        first = Engine.primary(directory, prefix=host.prefix)
        second = Engine.primary(directory, prefix=host.prefix)
        first.stop()
        assert second.docker("version", "--format", "{{.Server.Version}}")
        second.stop()
        assert not engines.answers(directory / "docker.sock")


def test_waiting_ends_with_the_last_error_in_its_message(tmp_path: Path) -> None:
    with pytest.raises(TimeoutError, match=r"the file did not come true .* \(last error: FileNotFoundError"):
        wait_until(lambda: (tmp_path / "nothing").read_text(), 0.05, "the file")


def test_a_free_port_can_be_listened_on() -> None:
    with socket.create_server(("127.0.0.1", free_port())) as server:
        assert server.getsockname()[1] > 0
