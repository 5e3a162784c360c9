"""The host's own nginx as the front, for real."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from keepflow.errors import DeployFailed
from keepflow.ports import Traffic
from keepflow.proxies.nginx import Nginx
from tests.real.fronts import Front, Slots, place, site_of, slots
from tests.real.parts import find
from tests.real.waiting import free_port, wait_until

__all__ = ["place", "slots"]

pytestmark = pytest.mark.real


@dataclass
class HostNginxProcess:
    """An nginx that a person runs, with a tree as Debian lays it."""

    place: Path
    main: Path

    def argv(self, *more: str) -> list[str]:
        return [find("nginx") or "nginx", "-p", str(self.place), "-c", str(self.main), *more]


@pytest.fixture
def host_nginx(place: Path) -> Iterator[HostNginxProcess]:
    etc = place / "etc"
    for name in ("conf.d", "sites-enabled", "sites-available"):
        (etc / name).mkdir(parents=True)
    (etc / "sites-available" / "hello").write_text(
        f"server {{ listen 127.0.0.1:{free_port()}; return 200 'by hand'; }}\n"
    )
    (etc / "sites-enabled" / "hello").symlink_to("../sites-available/hello")
    temps = "".join(
        f"{kind}_temp_path {place}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (etc / "nginx.conf").write_text(
        f"pid {place}/host.pid;\nerror_log {place}/error.log;\nevents {{}}\nhttp {{\naccess_log off;\n{temps}"
        f"include {etc}/conf.d/*.conf;\ninclude sites-enabled/*;\n}}\n"
    )
    made = HostNginxProcess(place, etc / "nginx.conf")
    subprocess.run(made.argv(), check=True)
    wait_until((place / "host.pid").exists, 5, "the pid file")
    yield made
    os.kill(int((place / "host.pid").read_text()), signal.SIGTERM)
    wait_until(lambda: not (place / "host.pid").exists(), 5, "its end")


def host_proxy(running: HostNginxProcess) -> Nginx:
    return Nginx.host(
        running.place / "sw",
        running.main.parent / "conf.d",
        find("nginx") or "nginx",
        running.argv("-s", "reload"),
        running.main,
    )


def test_the_hosts_nginx_gets_one_include_and_obeys_its_flags(host_nginx: HostNginxProcess, slots: Slots) -> None:
    proxy, site = host_proxy(host_nginx), site_of(slots)
    proxy.ensure(site)
    include = host_nginx.main.parent / "conf.d" / "keepflow-kf-shop-main.conf"
    assert include.stat().st_mode & 0o777 == 0o600
    proxy.switch(site, Traffic("green"))
    assert proxy.probe(site, "/", 2).slot == "green"
    assert proxy.sees_flags(site)
    proxy.remove(site)
    assert not include.exists()


def test_the_hosts_own_access_log_goes_on(host_nginx: HostNginxProcess, slots: Slots) -> None:
    log = host_nginx.place / "access.log"
    text = host_nginx.main.read_text()
    host_nginx.main.write_text(
        text.replace("access_log off;", f"log_format own '$request $status';\naccess_log {log} own;")
    )
    proxy, site = host_proxy(host_nginx), site_of(slots)
    proxy.ensure(site)
    proxy.switch(site, Traffic("green", counted=True))
    Front(host_nginx.place, proxy, site, slots).ask("/seen-by-both")
    wait_until(lambda: "GET /seen-by-both HTTP/1.1 200" in log.read_text(), 5, "the host's line")
    wait_until(lambda: len(proxy.visits(site, 0)[0]) == 1, 5, "the line of our own")


def test_a_broken_tree_of_the_host_is_named_before_anything_is_changed(
    host_nginx: HostNginxProcess, slots: Slots
) -> None:
    broken = host_nginx.main.parent / "conf.d" / "broken.conf"
    broken.write_text("server { no_such_directive; }\n")
    with pytest.raises(DeployFailed, match=re.escape(str(broken))) as failed:
        host_proxy(host_nginx).ensure(site_of(slots))
    assert failed.value.code == "proxy-config"
    assert [path.name for path in broken.parent.iterdir()] == ["broken.conf"]


def test_f26_a_file_of_somebody_else_that_breaks_the_tree_later_hinders_no_switch(
    host_nginx: HostNginxProcess, slots: Slots
) -> None:
    proxy, site = host_proxy(host_nginx), site_of(slots)
    proxy.ensure(site)
    proxy.switch(site, Traffic("blue"))
    (host_nginx.main.parent / "conf.d" / "broken.conf").write_text("server { no_such_directive; }\n")
    proxy.ensure(site)
    proxy.switch(site, Traffic("green"))
    assert proxy.probe(site, "/", 2).slot == "green"
    assert proxy.sees_flags(site)


def test_a_host_that_does_not_include_the_folder_is_told_so(host_nginx: HostNginxProcess, slots: Slots) -> None:
    elsewhere = host_nginx.place / "elsewhere"
    elsewhere.mkdir()
    proxy = Nginx.host(
        host_nginx.place / "sw",
        elsewhere,
        find("nginx") or "nginx",
        host_nginx.argv("-s", "reload"),
        host_nginx.main,
    )
    with pytest.raises(DeployFailed, match=r"include .*elsewhere/\*\.conf") as failed:
        proxy.ensure(site_of(slots))
    assert failed.value.code == "proxy-reload"
    assert list(elsewhere.iterdir()) == []
