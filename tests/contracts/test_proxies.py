"""Every proxy keeps the promises of `ports.Proxy`; a new one is tested here before its author writes a test."""

from __future__ import annotations

import inspect
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from keepflow import ports
from keepflow.errors import DeployFailed
from keepflow.ports import Proxy, Site, Traffic
from keepflow.proxies._own import OwnNginx
from keepflow.proxies.nginx import Nginx
from keepflow.proxies.none import NoProxy
from tests.agent.fakes import App
from tests.real.parts import find, need
from tests.real.waiting import free_port


def _nginx(place: Path) -> Proxy:
    need("nginx")
    return Nginx.own(place / "sw", place / "nginx", find("nginx") or "nginx")


def _stop_nginx(place: Path) -> None:
    OwnNginx(place / "nginx", find("nginx") or "nginx").stop()


#: How each proxy is made in a directory, and ended.
_MAKERS: dict[str, tuple[Callable[[Path], Proxy], Callable[[Path], None]]] = {
    "nginx": (_nginx, _stop_nginx),
    "none": (lambda place: NoProxy(place / "sw"), lambda _: None),
}


def test_every_proxy_is_held_to_its_contract() -> None:
    assert set(ports.discover("keepflow.proxies")) == set(_MAKERS)


@pytest.mark.parametrize("name", sorted(ports.discover("keepflow.proxies")))
def test_a_proxy_is_one_file_with_one_class_that_fits(name: str) -> None:
    module = ports.discover("keepflow.proxies")[name]
    classes = [one for one in vars(module).values() if inspect.isclass(one) and one.__module__ == module.__name__]
    public = [one for one in classes if not one.__name__.startswith("_")]
    assert len(public) == 1
    for method, wanted in vars(Proxy).items():
        if callable(wanted) and not method.startswith("_"):
            assert list(inspect.signature(getattr(public[0], method)).parameters) == list(
                inspect.signature(wanted).parameters
            )


@pytest.fixture(params=[pytest.param("nginx", marks=pytest.mark.real), "none"])
def made(request: pytest.FixtureRequest) -> Iterator[tuple[Proxy, Site]]:
    """A proxy, and a site whose two slots answer `blue` and `green`."""
    place = Path(tempfile.mkdtemp(prefix="keepflow-proxy-test-"))
    place.chmod(0o755)
    maker, end = _MAKERS[request.param]
    proxy = maker(place)
    apps = {slot: App("127.0.0.1", free_port(), slot, sick=False) for slot in ("blue", "green")}
    site = Site(
        service="shop",
        instance="main",
        server_name="shop.example.org",
        listen=f"127.0.0.1:{free_port()}",
        blue=f"127.0.0.1:{apps['blue'].server_port}",
        green=f"127.0.0.1:{apps['green'].server_port}",
        probe_token="p" * 32,
        bypass_token="b" * 32,
    )
    yield proxy, site
    end(place)
    for app in apps.values():
        app.end()
    shutil.rmtree(place)


def test_before_ensure_there_is_nothing_and_after_it_nobody_serves(made: tuple[Proxy, Site]) -> None:
    proxy, site = made
    assert proxy.state(site) is None
    assert not proxy.sees_flags(site)
    proxy.ensure(site)
    assert proxy.state(site) == Traffic(None, maintenance=True)
    assert proxy.sees_flags(site)


@pytest.mark.parametrize(
    "traffic",
    [
        Traffic("blue"),
        Traffic("green"),
        Traffic("green", net=True),
        Traffic("blue", maintenance=True),
        Traffic(None, maintenance=True),
    ],
)
def test_a_state_that_was_switched_to_is_in_force_and_read_back(made: tuple[Proxy, Site], traffic: Traffic) -> None:
    proxy, site = made
    proxy.ensure(site)
    proxy.switch(site, traffic)
    assert proxy.state(site) == traffic
    assert proxy.sees_flags(site)
    answer = proxy.probe(site, "/", 2)
    if traffic.maintenance:
        assert (answer.status, answer.slot) == (503, None)
    else:
        assert traffic.slot is not None
        assert (answer.status, answer.slot, answer.body.decode()) == (200, traffic.slot, traffic.slot)
        assert answer.address == (site.blue if traffic.slot == "blue" else site.green)


@pytest.mark.parametrize("traffic", [Traffic(None), Traffic(None, net=True), Traffic("purple"), Traffic("../blue")])
def test_a_switch_to_nowhere_is_refused_with_the_old_state_in_force(made: tuple[Proxy, Site], traffic: Traffic) -> None:
    proxy, site = made
    proxy.ensure(site)
    proxy.switch(site, Traffic("blue"))
    with pytest.raises(DeployFailed) as failed:
        proxy.switch(site, traffic)
    assert failed.value.code == "switch-failed"
    assert proxy.state(site) == Traffic("blue")
    assert proxy.probe(site, "/", 2).slot == "blue"


def test_ensure_changes_nothing_about_what_serves(made: tuple[Proxy, Site]) -> None:
    proxy, site = made
    proxy.ensure(site)
    proxy.switch(site, Traffic("green"))
    proxy.ensure(site)
    assert proxy.state(site) == Traffic("green")


def test_what_is_removed_is_gone_and_may_be_removed_again(made: tuple[Proxy, Site]) -> None:
    proxy, site = made
    proxy.ensure(site)
    proxy.switch(site, Traffic("green"))
    proxy.remove(site)
    proxy.remove(site)
    assert proxy.state(site) is None
    with pytest.raises(DeployFailed) as failed:
        proxy.probe(site, "/", 1)
    assert failed.value.code == "proxy-down"
    proxy.ensure(site)
    assert proxy.state(site) == Traffic(None, maintenance=True)
