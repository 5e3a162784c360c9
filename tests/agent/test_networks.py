"""Slot networks: allotted once, never overlapping, never colliding by name."""

from __future__ import annotations

import contextlib
import tempfile
from ipaddress import IPv4Network
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keepflow.agent.networks import Networks, host_routes, routes_of
from keepflow.core import names
from keepflow.errors import DeployFailed

_name = st.text("ab-", min_size=1, max_size=5).filter(names.is_name)
_TABLE = (
    "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
    "eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
    "docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n"
    "kf\t1000D50A\t00000000\t0001\t0\t0\t0\tF0FFFFFF\t0\t0\t0\n"
)


def networks(place: Path, pool: str = "10.213.0.0/24", routes: tuple[str, ...] = ()) -> Networks:
    return Networks(place / "networks.json", pool, lambda: [IPv4Network(route) for route in routes])


def test_routes_are_read_as_the_kernel_writes_them() -> None:
    assert routes_of(_TABLE) == [IPv4Network("172.17.0.0/16"), IPv4Network("10.213.0.16/28")]
    assert all(route.prefixlen for route in host_routes())


def test_blue_is_2_and_green_is_3(tmp_path: Path) -> None:
    network = networks(tmp_path).of("shop", "main")
    assert (network.name, network.subnet) == ("kf-shop-main-net", "10.213.0.0/28")
    assert (network.address("blue"), network.address("green")) == ("10.213.0.2", "10.213.0.3")


def test_what_was_allotted_stays_in_another_process_with_another_pool(tmp_path: Path) -> None:
    first = networks(tmp_path).of("shop", "main")
    assert networks(tmp_path, "10.99.0.0/16", ("10.0.0.0/8",)).of("shop", "main") == first


def test_parts_that_are_routed_elsewhere_are_left_out(tmp_path: Path) -> None:
    found = networks(tmp_path, routes=("10.213.0.0/27", "192.168.0.0/16")).of("shop", "main")
    assert found.subnet == "10.213.0.32/28"


def test_a_pool_inside_a_route_is_refused_and_the_route_named(tmp_path: Path) -> None:
    with pytest.raises(DeployFailed, match=r"10\.0\.0\.0/8") as refused:
        networks(tmp_path, routes=("10.0.0.0/8",)).of("shop", "main")
    assert refused.value.code == "network-overlap"


def test_a_full_pool_says_so_until_something_is_released(tmp_path: Path) -> None:
    small = networks(tmp_path, "10.213.0.0/27")
    first, _ = small.of("a", "main"), small.of("b", "main")
    with pytest.raises(DeployFailed) as refused:
        small.of("c", "main")
    assert refused.value.code == "network-pool-full"
    small.release("a", "main")
    small.release("a", "main")
    assert small.of("c", "main").subnet == first.subnet


def test_two_instances_that_would_share_their_names_are_refused(tmp_path: Path) -> None:
    here = networks(tmp_path)
    here.of("a-b", "c")
    with pytest.raises(DeployFailed) as refused:
        here.of("a", "b-c")
    assert refused.value.code == "name-collision"


@given(st.lists(st.tuples(_name, _name), unique=True, max_size=12))
@settings(max_examples=50)
def test_no_two_instances_ever_share_an_address_or_a_name(instances: list[tuple[str, str]]) -> None:
    with tempfile.TemporaryDirectory() as place:
        here = networks(Path(place))
        found = {}
        for service, instance in instances:
            with contextlib.suppress(DeployFailed):
                found[service, instance] = here.of(service, instance)
        refused = set(instances) - found.keys()
        assert all(any(names.prefix(*one) == names.prefix(*other) for other in found) for one in refused)
        assert len({one.subnet for one in found.values()}) == len({one.name for one in found.values()}) == len(found)
        assert found == {key: networks(Path(place)).of(*key) for key in found}


def test_the_record_is_private(tmp_path: Path) -> None:
    networks(tmp_path).of("shop", "main")
    assert (tmp_path / "networks.json").stat().st_mode & 0o777 == 0o600
