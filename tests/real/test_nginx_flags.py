"""nginx as the front, for real: flags obeyed per request, and nothing lost while traffic moves."""

from __future__ import annotations

import os
import socket
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from keepflow.ports import Traffic, Visit
from keepflow.proxies.nginx import Nginx
from tests.real.fronts import MARKED, Front, Slots, front, own, place, site_of, slots
from tests.real.load_process import Load
from tests.real.parts import find
from tests.real.waiting import wait_until

__all__ = ["front", "place", "slots"]

pytestmark = pytest.mark.real


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
