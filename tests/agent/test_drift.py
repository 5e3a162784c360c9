"""What somebody did to a host by hand is seen at the next look, and adopting it touches nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from keepflow.core import names
from keepflow.core.states import Phase
from keepflow.ports import Traffic
from tests.agent.deployed import V1, V2, Host, host, order

__all__ = ["host"]


@pytest.fixture
def twice(host: Host) -> Host:
    """A host that serves V2 in green, with V1 hot in blue."""
    deployer = host.deployer(hot=60.0)
    assert deployer.deploy(order(V1)).outcome == Phase.DONE
    assert deployer.deploy(order(V2)).outcome == Phase.DONE
    return host


def told(host: Host) -> dict[str, tuple[str, str]]:
    """Return what is different now: what → (expected, found)."""
    return {one.what: (one.expected, one.found) for one in host.deployer().serving("shop").differences}


def turn(host: Host, traffic: Traffic) -> None:
    """Move the flag by hand."""
    deployer = host.deployer()
    deployer.proxy.switch(deployer.places.site(deployer.places.instance("shop", "main")), traffic)


def test_a_host_as_it_was_left_has_no_difference(twice: Host) -> None:
    assert told(twice) == {}
    assert twice.deployer().serving("shop").ours


def test_a_restarted_container_is_no_difference(twice: Host) -> None:
    held = twice.target.containers["kf-shop-main-green"]
    twice.target.crash("kf-shop-main-green")
    twice.target.start(held.facts.id)
    assert told(twice) == {}


def test_a_flag_moved_by_hand_is_seen_with_what_serves_now(twice: Host) -> None:
    turn(twice, Traffic("blue"))
    assert told(twice) == {"slot": ("green", "blue"), "image": (V2, V1)}
    assert twice.deployer().serving("shop").identity == V1


def test_the_maintenance_page_put_up_by_hand_is_seen(twice: Host) -> None:
    turn(twice, Traffic("green", maintenance=True))
    assert told(twice) == {"visitors": ("the release", "the maintenance page")}


@pytest.mark.parametrize("name", ["kf-shop-main-green", "somebodys"])
def test_a_container_replaced_by_hand_is_seen_whatever_its_name(twice: Host, name: str) -> None:
    """Its address is what makes it answer, not its name."""
    held = twice.target.containers["kf-shop-main-green"]
    expected = held.facts.id
    del twice.target.containers["kf-shop-main-green"]
    held.facts = replace(held.facts, id="by-hand", name=name, labels={}, image_id=V1)
    twice.target.containers[name] = held
    assert told(twice) == {
        "container": (expected, f"by-hand ({name}, not made by keepflow)"),
        "image": (V2, V1),
    }
    seen = twice.deployer().serving("shop")
    assert (seen.ours, seen.identity, seen.image_id) == (False, None, V1)


def test_the_same_labels_on_another_container_are_seen_too(twice: Host) -> None:
    held = twice.target.containers["kf-shop-main-green"]
    expected = held.facts.id
    held.facts = replace(held.facts, id="twin")
    assert told(twice) == {"container": (expected, "twin (kf-shop-main-green)")}


def test_a_container_that_is_gone_is_seen(twice: Host) -> None:
    expected = twice.target.containers["kf-shop-main-green"].facts.id
    twice.target.remove(expected)
    assert told(twice) == {"container": (expected, "none")}


def test_what_serves_is_adopted_without_a_touch(twice: Host) -> None:
    turn(twice, Traffic("blue"))
    twice.target.calls.clear()
    outcome = twice.deployer(hot=60.0).deploy(order(V1, action="adopt"))
    assert (outcome.outcome, outcome.serving) == (Phase.DONE, V1)
    assert twice.target.calls == []
    assert told(twice) == {}
    assert set(twice.running().values()) == {V1, V2}
    after = twice.deployer().deploy(order(V2))
    assert (after.outcome, after.serving) == (Phase.DONE, V2)


@pytest.mark.parametrize(("image", "code"), [(V2, "other-container"), (V1, "other-settings")])
def test_only_what_really_serves_is_adopted(twice: Host, image: str, code: str) -> None:
    turn(twice, Traffic("blue"))
    more = {"env": {"A": "1"}} if image == V1 else {}
    outcome = twice.deployer().deploy(order(image, action="adopt", **more))
    assert (outcome.outcome, outcome.code) == (Phase.FAILED, code)
    assert twice.deployer().history("shop").current.identity == V2
    assert set(twice.running().values()) == {V1, V2}


def test_what_a_stranger_runs_in_a_slot_is_never_adopted(twice: Host) -> None:
    held = twice.target.containers["kf-shop-main-green"]
    held.facts = replace(held.facts, labels={names.LABEL_IDENTITY: V2})
    outcome = twice.deployer().deploy(order(V2, action="adopt"))
    assert (outcome.outcome, outcome.code) == (Phase.FAILED, "other-container")
