"""A real nginx in front of two applications on loopback."""

from __future__ import annotations

import http.client
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from keepflow.ports import Site, Traffic
from keepflow.proxies._own import OwnNginx
from keepflow.proxies.nginx import Nginx
from tests.real.parts import find, need
from tests.real.waiting import free_port, wait_until

APP = Path(__file__).with_name("app.py")
MARKED = {"blue": "marker: blue\n", "green": "marker: green\n"}


class Slots:
    """Two applications on loopback, each a process that can be killed and started again."""

    def __init__(self) -> None:
        self.ports = {"blue": free_port(), "green": free_port()}
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        for slot in self.ports:
            self.start(slot)

    def start(self, slot: str) -> None:
        env = {"PATH": os.environ["PATH"], "VERSION": slot, "PORT": str(self.ports[slot])}
        python = find("python3") or "python3"
        self._running[slot] = subprocess.Popen([python, str(APP)], env=env, stdout=subprocess.DEVNULL)
        wait_until(lambda: socket.create_connection(("127.0.0.1", self.ports[slot]), 1).close() is None, 10, slot)

    def kill(self, slot: str) -> None:
        self._running[slot].kill()
        self._running[slot].wait()

    def close(self) -> None:
        for slot in self.ports:
            self.kill(slot)


@dataclass
class Front:
    """An nginx with one site in front of the two slots."""

    place: Path
    proxy: Nginx
    site: Site
    slots: Slots

    def ask(self, path: str = "/", method: str = "GET", **headers: str) -> tuple[int, dict[str, str], str]:
        host, _, port = self.site.listen.rpartition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=10)
        try:
            body = b"posted" if method == "POST" else None
            connection.request(method, path, body, {"Host": self.site.server_name, **headers})
            answer = connection.getresponse()
            return answer.status, {key.lower(): value for key, value in answer.getheaders()}, answer.read().decode()
        finally:
            connection.close()


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that nginx's workers can pass (pytest's own are 0700)."""
    need("nginx")
    path = Path(tempfile.mkdtemp(prefix="keepflow-nginx-test-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def slots() -> Iterator[Slots]:
    made = Slots()
    yield made
    made.close()


@pytest.fixture
def front(place: Path, slots: Slots) -> Iterator[Front]:
    """An own nginx whose site sends visitors to blue."""
    proxy = Nginx.own(place / "sw", place / "nginx", find("nginx") or "nginx")
    made = Front(place, proxy, site_of(slots), slots)
    try:
        proxy.ensure(made.site)
        proxy.switch(made.site, Traffic("blue"))
        yield made
    finally:
        own(place).stop()


def site_of(slots: Slots, instance: str = "main") -> Site:
    return Site(
        service="shop",
        instance=instance,
        server_name=f"{instance}.shop.example.org",
        listen=f"127.0.0.1:{free_port()}",
        blue=f"127.0.0.1:{slots.ports['blue']}",
        green=f"127.0.0.1:{slots.ports['green']}",
        probe_token="probe-token-of-this-test",
        bypass_token="bypass-token-of-this-test",
    )


def own(place: Path) -> OwnNginx:
    return OwnNginx(place / "nginx", find("nginx") or "nginx")
