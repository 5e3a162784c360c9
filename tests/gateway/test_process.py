"""The server process: started twice, killed, starved of disk, stopped in the middle of everything."""

from __future__ import annotations

import json
import os
import secrets
import signal
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from keepflow.wire import messages
from tests.bench.hook_load import Load
from tests.gateway.conftest import Served, serve
from tests.gateway.played import Played
from tests.gateway.readers import Reader
from tests.processes import SECRET, MasterProcess, hook_headers, push_body
from tests.real.parts import need_root
from tests.real.waiting import wait_until


def _stored(home: Path) -> set[str]:
    with sqlite3.connect(f"file:{home}/keepflow.db?mode=ro", uri=True) as conn:
        return {row[0] for row in conn.execute("SELECT delivery FROM deliveries")}


# --- starting --------------------------------------------------------------------------------------------------------


def test_r78_health_is_answered_without_login_and_says_no_more(served: Served) -> None:
    for path, keys in (
        ("/healthz", {"status"}),
        ("/readyz", {"status", "database", "disk"}),
        ("/version", {"version"}),
    ):
        reply = served.master.get(path)
        assert reply.status == 200
        assert set(reply.json) == keys
        assert served.master.ask("POST", path, b"").status == 405


def test_f16_a_second_master_on_the_same_home_is_refused(served: Served) -> None:
    second = MasterProcess(served.master.home)
    done = subprocess.run(second.argv(), capture_output=True, text=True, timeout=30)
    assert done.returncode == 7
    assert "another master" in done.stderr
    assert "Traceback" not in done.stderr
    assert served.master.get("/readyz").status == 200
    assert json.loads((served.master.home / "master.json").read_text())["pid"] == served.master.pid


def test_a_port_that_is_taken_is_said_and_the_home_is_free_again(served: Served, tmp_path: Path) -> None:
    other = MasterProcess(tmp_path / "home", port=served.master.port)
    done = subprocess.run(other.argv(), capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1:{served.master.port}" in done.stderr
    freed = MasterProcess(tmp_path / "home").start()
    freed.close()


@pytest.mark.parametrize(
    ("options", "env", "word"),
    [
        (("--listen", "7070"), {}, "listen"),
        (("--url", "ci.example.org"), {}, "url"),
        ((), {"KEEPFLOW_TRUSTED_PROXIES": "nobody"}, "trusted_proxies"),
        ((), {"KEEPFLOW_DATABASE_FILE": "/nonexistent/file"}, "KEEPFLOW_DATABASE_FILE"),
        (("--database", "sqlite://"), {}, "name a file"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, options: tuple[str, ...], env: dict[str, str], word: str) -> None:
    wrong = MasterProcess(tmp_path / "home")
    done = subprocess.run(
        [*wrong.argv(), *options], capture_output=True, text=True, timeout=30, env={**os.environ, **env}
    )
    assert done.returncode == 2
    assert word in done.stderr
    assert "Traceback" not in done.stderr


def test_f27_a_lost_key_is_never_replaced_by_a_new_one(own: Served) -> None:
    assert own.master.stop() == 0
    for name in ("master.key", "order.key"):
        key = own.master.home / name
        kept = key.read_bytes()
        key.unlink()
        done = subprocess.run(own.master.argv(), capture_output=True, text=True, timeout=30)
        assert done.returncode == 1
        assert str(key) in done.stderr
        assert not key.exists()
        key.write_bytes(kept)
        key.chmod(0o600)
    own.master.start()


def test_r79_a_home_copied_elsewhere_goes_on_where_it_was(own: Served, tmp_path: Path) -> None:
    body = push_body(sha=own.sha)
    assert own.master.ask("POST", "/hooks/app", body, hook_headers(body, "copied")).status == 202
    path = "/projects/app/runs"
    wait_until(lambda: own.master.api("GET", path).json["items"], 20, "the push becomes a run")
    assert own.master.stop() == 0
    subprocess.run(["cp", "-a", str(own.master.home), str(tmp_path / "elsewhere")], check=True)
    copy = MasterProcess(tmp_path / "elsewhere").start()
    try:
        assert len(copy.api("GET", path).json["items"]) == 1
        assert copy.ask("POST", "/hooks/app", body, hook_headers(body, "copied")).json["duplicate"]
    finally:
        copy.close()


# --- stopping --------------------------------------------------------------------------------------------------------


def test_sigterm_ends_streams_and_links_with_a_farewell_within_three_seconds(own: Served) -> None:
    agent = Played.joined(own.master, "builder")
    link = agent.link()
    body = push_body(sha=own.sha)
    assert own.master.ask("POST", "/hooks/app", body, hook_headers(body, "last")).status == 202
    fence = link.take_order().body.fence
    readers = [Reader(own.master, "/streams/runs/app/1/log") for _ in range(20)]
    readers += [Reader(own.master, "/streams/events") for _ in range(20)]
    idle = [own.master.connect() for _ in range(20)]
    slow = own.master.connect()
    slow.sendall(
        b"POST /hooks/app HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99999\r\n\r\n{"
    )
    link.send_log(fence, 0, b"still here\n")
    assert link.hear_until(messages.LogAck).offset == 11
    began = time.monotonic()
    own.master.process.send_signal(signal.SIGTERM)  # type: ignore[union-attr]  # it was started
    farewell = link.hear_until(messages.Farewell)
    assert farewell.retry <= 1
    for reader in readers:
        said = reader.until("bye")
        assert said[-1].name == "bye"
        assert reader.next().retry == 500  # type: ignore[union-attr]  # the retry follows the word
        assert reader.next() is None
        reader.close()
    assert own.master.process.wait(10) == 0  # type: ignore[union-attr]  # it was started
    assert time.monotonic() - began < 3.0
    for connection in (*idle, slow):
        connection.close()
    assert not (own.master.home / "master.json").exists()
    assert "Traceback" not in own.master.log, own.master.log[-6000:]
    own.master.start()
    again = agent.link(running=(fence,))
    assert again.welcome is not None
    assert again.welcome.acked_logs == {fence: 11}
    again.close()


def test_a_second_signal_ends_it_at_once(own: Served) -> None:
    with own.master.connect() as busy:
        busy.sendall(b"GET /streams/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        own.master.process.send_signal(signal.SIGTERM)  # type: ignore[union-attr]  # it was started
        own.master.process.send_signal(signal.SIGINT)  # type: ignore[union-attr]  # it was started
        assert own.master.process.wait(5) in (0, 1)  # type: ignore[union-attr]  # it was started


# --- being killed ----------------------------------------------------------------------------------------------------


class _Loaded(threading.Thread):
    """A load of hooks in the background; `acknowledged` is the outside record of every 202."""

    def __init__(self, master: MasterProcess) -> None:
        super().__init__()
        self.load = Load(f"{master.url}/hooks/app", SECRET, 2048)

    def run(self) -> None:
        import asyncio

        asyncio.run(self.load.send(8, 60))


def _acknowledged_until_killed(master: MasterProcess, number: int) -> set[str]:
    """Kill the master in the middle of a load, after so many pushes, and return what it had acknowledged."""
    loaded = _Loaded(master)
    loaded.start()
    taken = loaded.load.result.acknowledged
    wait_until(lambda: len(taken) > number, 30, "pushes are taken")
    master.kill()
    loaded.load.until = 0
    loaded.join(30)
    return set(taken)


def test_p01_every_acknowledged_push_survives_kill_9(own: Served) -> None:
    acknowledged: set[str] = set()
    for cycle in range(6):
        acknowledged |= _acknowledged_until_killed(own.master, 50 + cycle * 37)
        own.master.start()
        missing = acknowledged - _stored(own.master.home)
        assert not missing, f"{len(missing)} of {len(acknowledged)} acknowledged deliveries are gone"
    assert len(acknowledged) > 500


def test_r54_what_was_taken_and_not_handled_is_handled_after_a_restart(own: Served) -> None:
    body = push_body(sha=own.sha)
    for number in range(5):
        assert own.master.ask("POST", "/hooks/app", body, hook_headers(body, f"before-{number}")).status == 202
    own.master.kill()
    own.master.start()

    def handled() -> bool:
        found = own.master.api("GET", "/projects/app/deliveries").json["items"]
        return len(found) == 5 and all(item["handled"] for item in found)

    wait_until(handled, 30, "every delivery is handled")


# --- a full disk -----------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    need_root()
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100m", "tmpfs", str(place)], check=True)
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_p19_a_full_disk_is_503_and_never_202_and_mends_itself(small_disk: Path) -> None:
    served = serve(small_disk)
    try:
        for cycle in range(3):
            _fill_and_free(served, small_disk, cycle)
        assert served.master.get("/healthz").status == 200
        with sqlite3.connect(f"file:{served.master.home}/keepflow.db?mode=ro", uri=True) as conn:
            assert conn.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    finally:
        served.master.close()


def _fill_and_free(served: Served, disk: Path, cycle: int) -> None:
    ballast = disk / "ballast"
    with ballast.open("wb") as file:
        try:
            while True:
                file.write(b"x" * 1_000_000)
                file.flush()
        except OSError:
            pass
    body = push_body(sha=served.sha, size=200_000)
    taken: set[str] = set()
    statuses: set[int] = set()
    for number in range(60):
        delivery = f"full-{cycle}-{number}"
        reply = served.master.ask("POST", "/hooks/app", body, hook_headers(body, delivery))
        statuses.add(reply.status)
        if reply.status == 202:
            taken.add(delivery)
        else:
            assert reply.status == 503
            assert int(reply.headers["Retry-After"]) > 0
        if number > 10 and reply.status == 503:
            break
    assert 503 in statuses
    assert served.master.get("/readyz").status == 503
    assert taken <= _stored(served.master.home)
    ballast.unlink()

    def works_again() -> bool:
        again = push_body(sha=served.sha)
        reply = served.master.ask("POST", "/hooks/app", again, hook_headers(again, secrets.token_hex(8)))
        return reply.status == 202

    wait_until(works_again, 60, "pushes are taken again")


# --- what it costs ---------------------------------------------------------------------------------------------------


def test_an_idle_master_is_small_and_reads_nothing_it_was_not_given(served: Served) -> None:
    assert served.master.rss() < 120 * 1024 * 1024
    environment = Path(f"/proc/{served.master.pid}/environ").read_bytes()
    assert SECRET.encode() not in environment
