"""An nginx of our own, for real: sites come, change and go, and it outlives whoever started it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from keepflow.errors import DeployFailed
from keepflow.ports import Traffic
from keepflow.proxies.nginx import Nginx
from keepflow.tools.failpoints import VARIABLE, Injected
from tests.real.fronts import MARKED, Front, Slots, front, own, place, site_of, slots
from tests.real.parts import find, need
from tests.real.waiting import free_port, wait_until

__all__ = ["front", "place", "slots"]

pytestmark = pytest.mark.real


def test_a_second_site_comes_and_goes_and_the_first_does_not_notice(front: Front) -> None:
    other = replace(site_of(front.slots, "other"), server_name="other.example.org")
    front.proxy.ensure(other)
    front.proxy.switch(other, Traffic("green"))
    assert front.proxy.probe(other, "/", 2).slot == "green"
    assert front.proxy.probe(front.site, "/", 2).slot == "blue"
    front.proxy.remove(other)
    front.proxy.remove(other)
    assert front.proxy.state(other) is None
    assert front.proxy.probe(front.site, "/", 2).slot == "blue"
    assert not (front.place / "sw" / "kf-shop-other").exists()


def test_a_changed_site_is_proven_by_its_answer(front: Front) -> None:
    moved = replace(front.site, listen=f"127.0.0.1:{free_port()}", blue=front.site.green, green=front.site.blue)
    front.proxy.ensure(moved)
    assert front.proxy.probe(moved, "/", 2).body.decode() == MARKED["green"]
    pid = own(front.place).pid()
    front.proxy.ensure(moved)
    assert own(front.place).pid() == pid


def test_f23_a_taken_port_is_a_failed_change_and_the_old_site_serves_on(front: Front) -> None:
    before = own(front.place).place("kf-shop-main").read_text()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        wanted = replace(front.site, listen=f"127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(DeployFailed, match=r"emerg|Address already in use") as failed:
            front.proxy.ensure(wanted)
    assert failed.value.code == "proxy-reload"
    assert own(front.place).place("kf-shop-main").read_text() == before
    assert front.proxy.probe(front.site, "/", 2).slot == "blue"
    front.proxy.ensure(front.site)


def test_f23_a_bad_file_of_somebody_else_is_named_and_nothing_is_reloaded(front: Front) -> None:
    (front.place / "nginx" / "sites" / "by-hand.conf").write_text("server { listn 80; }\n")
    with pytest.raises(DeployFailed, match=r"sites/by-hand\.conf") as failed:
        front.proxy.ensure(replace(front.site, server_name="new.example.org"))
    assert failed.value.code == "proxy-config"
    assert front.proxy.probe(front.site, "/", 2).slot == "blue"


def test_the_own_nginx_outlives_its_agent_and_is_found_again(front: Front) -> None:
    pid = own(front.place).pid()
    assert pid is not None
    assert os.getsid(pid) != os.getsid(0)
    again = Nginx.own(front.place / "sw", front.place / "nginx", find("nginx") or "nginx")
    again.ensure(front.site)
    assert own(front.place).pid() == pid


def test_a_pid_file_that_names_a_stranger_is_not_believed(front: Front) -> None:
    pid_file = front.place / "nginx" / "nginx.pid"
    real = pid_file.read_text()
    pid_file.write_text(f"{os.getpid()}\n")
    assert own(front.place).pid() is None
    pid_file.write_text(real)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_dead_nginx_is_started_again_with_all_its_sites(front: Front, number: signal.Signals) -> None:
    pid = own(front.place).pid()
    assert pid is not None
    os.kill(pid, number)
    wait_until(lambda: own(front.place).pid() is None, 5, "the master's end")
    front.proxy.ensure(front.site)
    wait_until(lambda: front.proxy.probe(front.site, "/", 2).slot == "blue", 5, "an answer")
    assert own(front.place).pid() not in (None, pid)
    front.proxy.ensure(front.site)


def test_killed_between_file_and_reload_the_next_ensure_brings_them_together(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = replace(front.site, server_name="renamed.example.org")
    monkeypatch.setenv(VARIABLE, "reload.before=raise")
    with pytest.raises(Injected):
        front.proxy.ensure(changed)
    monkeypatch.delenv(VARIABLE)
    front.proxy.ensure(changed)
    assert front.proxy.probe(changed, "/", 2).status == 200


def test_tls_ends_here_when_the_site_has_a_certificate(place: Path, slots: Slots) -> None:
    need("openssl")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=shop.example.org",
         "-keyout", str(place / "key.pem"), "-out", str(place / "cert.pem")],
        check=True, capture_output=True,
    )  # fmt: skip
    proxy = Nginx.own(place / "sw", place / "nginx", find("nginx") or "nginx")
    site = replace(site_of(slots), certificate=str(place / "cert.pem"), certificate_key=str(place / "key.pem"))
    try:
        proxy.ensure(site)
        proxy.switch(site, Traffic("green"))
        assert proxy.probe(site, "/", 2).slot == "green"
    finally:
        own(place).stop()
