"""The pool of slot networks against what else is routed."""

from __future__ import annotations

import json
from collections.abc import Callable
from ipaddress import IPv4Network

import pytest

from keepflow.agent.doctor import slot_networks
from keepflow.agent.doctor.patient import Patient
from keepflow.agent.networks import host_routes

POOL = IPv4Network("10.213.0.0/24")
FIRST = IPv4Network("10.213.0.0/28")


@pytest.mark.parametrize(
    ("allotted", "taken", "state"),
    [
        ([], {}, "ok"),
        ([FIRST], {}, "ok"),
        ([FIRST], {"192.0.2.0/24": "a route"}, "ok"),
        ([], {"10.213.0.128/25": "a VPN"}, "warning"),
        ([FIRST], {"10.213.0.128/25": "a VPN"}, "warning"),
        ([], {"10.0.0.0/8": "a VPN"}, "failed"),
        ([], {"10.213.0.0/25": "a VPN", "10.213.0.128/25": "another"}, "failed"),
        ([FIRST], {"10.213.0.8/29": "a VPN"}, "failed"),
        ([FIRST], {"10.213.0.0/28": "the engine's network other"}, "failed"),
        (list(POOL.subnets(new_prefix=28)), {}, "failed"),
    ],
)
def test_what_overlaps_is_named(allotted: list[IPv4Network], taken: dict[str, str], state: str) -> None:
    (finding,) = slot_networks.judge(POOL, allotted, taken)
    assert finding.state == state
    for what in taken.values() if state != "ok" else ():
        assert what in finding.sentence


def test_the_routes_of_this_host_count_and_those_of_our_own_instances_do_not(
    make_patient: Callable[..., Patient],
) -> None:
    route = next(route for route in host_routes() if 8 <= route.prefixlen <= 28)
    patient = make_patient(networks=str(route))
    (finding,) = slot_networks.look(patient)
    assert finding.state == "failed"
    assert f"a route to {route}" in finding.sentence
    patient.state.claim()
    (patient.state.root / "networks.json").write_text(json.dumps({"shop/main": str(route)}))
    (finding,) = slot_networks.look(patient)
    assert "a route to" not in finding.sentence
