"""nginx as the front, for real: flags obeyed per request, reloads proven, and nothing lost while traffic moves."""

from __future__ import annotations

import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from keepflow.errors import DeployFailed
from keepflow.ports import Site, Traffic, Visit
from keepflow.proxies._own import OwnNginx
from keepflow.proxies.nginx import Nginx
from keepflow.tools.failpoints import VARIABLE, Injected
from tests.real.load_process import Load
from tests.real.parts import find, need
from tests.real.waiting import free_port, wait_until

pytestmark = pytest.mark.real

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


# --- flags ------------------------------------------------------------------------------------------------------------


def test_before_the_first_deploy_visitors_see_the_maintenance_page(place: Path, slots: Slots) -> None:
    proxy = Nginx.own(place / "sw", place / "nginx", find("nginx") or "nginx")
    front = Front(place, proxy, site_of(slots), slots)
    try:
        proxy.ensure(front.site)
        assert proxy.state(front.site) == Traffic(None, maintenance=True)
        assert proxy.sees_flags(front.site)
        status, headers, body = front.ask()
        assert (status, headers["retry-after"], headers["cache-control"]) == (503, "30", "no-store")
        assert headers["content-type"] == "text/html"
        assert "Back in a moment" in body
    finally:
        own(place).stop()


@pytest.mark.parametrize("slot", ["blue", "green"])
@pytest.mark.parametrize("net", [False, True])
def test_the_very_next_request_goes_where_the_flag_says(front: Front, slot: str, net: bool) -> None:
    front.proxy.switch(front.site, Traffic(slot, net=net))
    assert front.ask() == (200, front.ask()[1], MARKED[slot])
    answer = front.proxy.probe(front.site, "/", 2)
    assert (answer.status, answer.slot, answer.body.decode()) == (200, slot, MARKED[slot])
    assert answer.address == getattr(front.site, slot)
    assert front.proxy.sees_flags(front.site)


def test_visitors_are_told_nothing_about_slots_and_cannot_ask(front: Front) -> None:
    _, headers, _ = front.ask()
    assert not [name for name in headers if "keepflow" in name]
    assert front.ask("/__keepflow/state")[0] == 404
    assert front.ask("/__keepflow/maintenance.html")[0] == 404
    _, headers, _ = front.ask(**{"X-Keepflow-Probe": "a-guessed-token-of-a-visitor"})
    assert not [name for name in headers if "keepflow" in name]


def test_the_application_gets_host_and_address_of_the_visitor_but_not_the_probe_token(
    place: Path, slots: Slots
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        proxy = Nginx.own(place / "sw", place / "nginx", find("nginx") or "nginx")
        site = replace(site_of(slots), green=f"127.0.0.1:{listener.getsockname()[1]}")
        try:
            proxy.ensure(site)
            proxy.switch(site, Traffic("green"))
            asking = threading.Thread(target=lambda: Front(place, proxy, site, slots).ask(
                "/a%20b?c", **{"X-Keepflow-Probe": site.probe_token, "Host": f"{site.server_name}:8900"}
            ))  # fmt: skip
            asking.start()
            connection, _ = listener.accept()
            with connection:
                head = connection.recv(65536).decode().lower()
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            asking.join()
        finally:
            own(place).stop()
    assert "get /a%20b?c http/1.1\r\n" in head
    assert f"\r\nhost: {site.server_name}:8900\r\n" in head
    assert "\r\nx-forwarded-for: 127.0.0.1\r\n" in head
    assert "\r\nx-forwarded-proto: http\r\n" in head
    assert "probe" not in head


def test_maintenance_shows_the_page_to_get_and_post_but_not_behind_the_bypass(front: Front) -> None:
    front.proxy.switch(front.site, Traffic("blue", maintenance=True))
    for method in ("GET", "POST"):
        status, _, body = front.ask(method=method)
        assert status == 503
        assert "Back in a moment" in body
    status, _, body = front.ask(Cookie=f"keepflow_bypass={front.site.bypass_token}")
    assert (status, body) == (200, MARKED["blue"])
    assert front.proxy.sees_flags(front.site)


def test_a_dead_slot_gives_the_50x_page_and_with_the_net_the_other_slot_answers(front: Front) -> None:
    front.slots.kill("blue")
    status, _, body = front.ask()
    assert status == 502
    assert "No answer right now" in body
    assert front.proxy.probe(front.site, "/", 5).slot is None
    front.proxy.switch(front.site, Traffic("blue", net=True))
    answer = front.proxy.probe(front.site, "/", 5)
    assert (answer.status, answer.slot) == (200, "green"), "the last address tells who really answered"


def test_without_readable_flags_whoever_is_alive_serves_and_it_is_noticed(front: Front) -> None:
    (front.place / "sw" / "kf-shop-main" / "cur").unlink()
    front.slots.kill("blue")
    assert [front.ask()[0] for _ in range(4)] == [200] * 4
    assert not front.proxy.sees_flags(front.site)
    assert front.proxy.state(front.site) is None


def test_a_folder_the_workers_cannot_pass_is_noticed(front: Front) -> None:
    if os.geteuid() != 0:
        pytest.skip("workers run as another user only when nginx was started by root")
    (front.place / "sw" / "kf-shop-main").chmod(0o700)
    assert not front.proxy.sees_flags(front.site)
    front.proxy.switch(front.site, Traffic("green"))
    assert front.proxy.sees_flags(front.site), "a switch puts the rights of its folders right"


@pytest.mark.parametrize(("slot", "other", "percent"), [("blue", "green", 50), ("green", "blue", 10)])
@pytest.mark.parametrize("net", [False, True])
def test_a_canary_sends_about_its_share_to_the_other_slot(
    front: Front, slot: str, other: str, percent: int, net: bool
) -> None:
    traffic = Traffic(slot, net=net, canary=percent, counted=True)
    front.proxy.switch(front.site, traffic)
    assert front.proxy.state(front.site) == traffic
    assert front.proxy.sees_flags(front.site)
    seen = [front.ask(**{"User-Agent": f"visitor {number}"})[2].split()[1] for number in range(400)]
    assert set(seen) == {slot, other}
    assert abs(seen.count(other) / len(seen) - percent / 100) < 0.1
    meant = [visit.meant or "" for visit in visits_of(front, 400)]
    assert sorted(meant) == sorted(seen), "the record says who was meant to answer"
    for wanted in (slot, other):
        assert front.proxy.probe(front.site, "/", 2, wanted).slot == wanted
    assert len({front.ask(**{"User-Agent": "one visitor"})[2] for _ in range(10)}) == 1, "a visitor stays where he is"


def visits_of(front: Front, number: int) -> list[Visit]:
    """Return the record once it has so many lines: nginx writes one after the answer is on its way."""
    wait_until(lambda: len(front.proxy.visits(front.site, 0)[0]) >= number, 10, f"{number} visits")
    return front.proxy.visits(front.site, 0)[0]


def test_visitors_are_counted_while_the_flag_stands_and_probes_never_are(front: Front) -> None:
    front.ask()
    assert front.proxy.visits(front.site, 0) == ([], 0)
    front.proxy.switch(front.site, Traffic("blue", counted=True))
    assert front.proxy.sees_flags(front.site)
    front.proxy.probe(front.site, "/", 2)
    front.ask("/some/where", Cookie="a=b")
    front.ask("/favicon.ico?x=+503+blue", method="POST")
    visits = visits_of(front, 2)
    assert [(visit.status, visit.meant, visit.by) for visit in visits] == [(200, "blue", "blue")] * 2
    assert abs(visits[0].at - time.time()) < 60
    front.slots.kill("blue")
    front.ask()
    front.proxy.switch(front.site, Traffic("blue", net=True, counted=True))
    front.ask()
    assert [(visit.status, visit.meant, visit.by) for visit in visits_of(front, 4)[2:]] == [
        (502, "blue", "blue"), (200, "blue", "green"),
    ]  # fmt: skip
    front.proxy.switch(front.site, Traffic("blue", maintenance=True, counted=True))
    assert front.ask()[0] == 503
    front.proxy.switch(front.site, Traffic("green"))
    front.ask()
    front.proxy.switch(front.site, Traffic("green", net=True, maintenance=False))
    front.ask()
    assert len(visits_of(front, 4)) == 4, "the page is no answer of an application, and counting was over"
    front.proxy.switch(front.site, Traffic("green", counted=True))
    assert front.proxy.visits(front.site, 0) == ([], 0), "a new count begins with an empty record"


def test_the_bypass_link_gives_a_cookie_that_looks_behind_the_page(front: Front) -> None:
    front.proxy.switch(front.site, Traffic("blue", maintenance=True))
    status, headers, _ = front.ask(front.site.bypass_path)
    assert (status, headers["location"], headers["cache-control"]) == (302, "/", "no-store")
    assert {"HttpOnly", "SameSite=Lax", "Path=/"} <= set(headers["set-cookie"].split("; "))
    assert front.ask()[0] == 503
    assert front.ask(Cookie=headers["set-cookie"].partition(";")[0])[2] == MARKED["blue"]
    assert front.ask(f"/__keepflow/bypass/{'x' * 32}")[0] == 503


def test_an_upload_that_began_before_a_switch_reaches_the_new_slot_when_the_old_one_is_gone(front: Front) -> None:
    host, _, port = front.site.listen.rpartition(":")
    with socket.create_connection((host, int(port)), 10) as visitor:
        head = (
            f"POST /echo HTTP/1.1\r\nHost: {front.site.server_name}\r\nContent-Length: 10\r\nConnection: close\r\n\r\n"
        )
        visitor.sendall(head.encode() + b"12345")
        front.proxy.switch(front.site, Traffic("green"))
        front.slots.kill("blue")
        visitor.sendall(b"67890")
        answer = visitor.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(b"\r\n\r\n1234567890")


def test_a_request_the_dead_slot_had_begun_to_get_is_not_sent_again(front: Front) -> None:
    """It may have had its effect; only what was never sent may be sent elsewhere."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)
        site = replace(front.site, blue=f"127.0.0.1:{listener.getsockname()[1]}")
        front.proxy.ensure(site)

        def take_and_die() -> None:
            connection, _ = listener.accept()
            connection.recv(65536)
            front.proxy.switch(site, Traffic("green"))
            connection.close()

        dying = threading.Thread(target=take_and_die)
        dying.start()
        visitor = Front(front.place, front.proxy, site, front.slots)

        def broken_off() -> str | None:
            status, _, body = visitor.ask("/echo", "POST")  # a worker from before the reload may take the first ones
            return body if status == 502 else None

        body = wait_until(broken_off, 20, "an answer that is broken off")
        dying.join()
    assert "No answer right now" in body


def test_no_request_is_lost_over_many_switches_under_keep_alive_clients(front: Front, log_dir: Path) -> None:
    url = f"http://{front.site.listen}/"
    with Load(url, log_dir, "--rate", "400", host_header=front.site.server_name, clients=20) as load:
        for turn in range(30):
            slot = ("green", "blue")[turn % 2]
            front.proxy.switch(front.site, Traffic(slot, net=turn % 3 == 0))
            wait_until(lambda slot=slot: front.proxy.probe(front.site, "/", 2).slot == slot, 2, f"{slot} serving")
            time.sleep(0.05)  # let some load through each state: that is what is measured here
        summary = load.finish()
    assert summary["failed"] == 0, summary["failures"]
    assert summary["sent"] > 300
    assert {mark["mark"] for mark in summary["marks"]} == {"blue", "green"}


# --- reload mode: sites come, change and go ---------------------------------------------------------------------------


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


# --- the own nginx's life ---------------------------------------------------------------------------------------------


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


# --- the host's nginx -------------------------------------------------------------------------------------------------


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
