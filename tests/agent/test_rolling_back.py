"""Going back: asked for by a person on the host itself, and what there is to go back to."""

from __future__ import annotations

from typing import Any

import pytest

from keepflow import errors
from keepflow.core import names
from keepflow.core.states import Phase
from keepflow.ports import ImageFacts
from tests.agent.deployed import (
    V1,
    V2,
    V3,
    Host,
    Killed,
    from_registry,
    host,
    killed_at,
    order,
)

__all__ = ["host", "killed_at"]


def by_hand(host: Host, to: str = "", **changes: Any) -> Any:
    """Roll back as `keepflow agent rollback` does, in a process of its own that has no voice."""
    deployer = host.deployer(**changes)
    deployer.tells = False
    return deployer.carry_out(deployer.accept_rollback("shop", "main", to, "host:ann"))


@pytest.fixture
def twice(host: Host) -> Host:
    """A host that served V1 and serves V2."""
    deployer = host.deployer()
    deployer.deploy(order(V1))
    deployer.deploy(order(V2))
    return host


def test_a_person_on_the_host_goes_back_to_what_served_before(twice: Host) -> None:
    outcome = by_hand(twice)
    assert (outcome.outcome, outcome.serving) == (Phase.DONE, V1)
    assert twice.deployer().serving("shop").identity == V1
    assert twice.deployer().history("shop").current.action == "rollback"


def test_a_hot_one_is_taken_as_it_runs(host: Host) -> None:
    deployer = host.deployer(hot=60.0)
    deployer.deploy(order(V1))
    deployer.deploy(order(V2))
    host.target.calls.clear()
    assert by_hand(host, hot=60.0).receipt["hot_start"]
    assert host.target.calls == []


def test_the_end_of_a_rollback_by_hand_is_told_by_the_agent_once(twice: Host) -> None:
    before = len(twice.told.outcomes)
    by_hand(twice)
    twice.told.outcomes.clear()
    agent = twice.deployer()
    assert [outcome.serving for outcome in agent.settle_open()] == [V1]
    assert agent.settle_open() == []
    [(told, outcome)] = twice.told.outcomes
    assert (told.startswith("host-"), outcome.outcome, before) == (True, Phase.DONE, 2)


def test_a_second_rollback_by_hand_waits_for_nobody_to_tell_the_first(twice: Host) -> None:
    by_hand(twice)
    assert by_hand(twice, to=V2).serving == V2
    twice.told.outcomes.clear()
    twice.deployer().settle_open()
    assert [outcome.serving for _, outcome in twice.told.outcomes] == [V1, V2]


def test_a_rollback_by_hand_takes_no_number_of_the_master(twice: Host) -> None:
    highest = twice.deployer().journals.highest_of_all()
    by_hand(twice)
    assert twice.deployer().journals.highest_of_all() == highest
    assert twice.deployer().deploy(order(V3, fence=highest + 1)).outcome == Phase.DONE


@pytest.mark.parametrize(
    ("first", "to", "code"),
    [
        ("", "", "rolled-back-already"),
        ("", V1, "serves-already"),
        ("", "3333", "not-kept"),
        ("", "sha256:", "ambiguous"),
    ],
)
def test_a_rollback_that_makes_no_sense_is_refused_in_words(twice: Host, first: str, to: str, code: str) -> None:
    by_hand(twice, first)
    with pytest.raises(errors.KeepflowError) as refused:
        by_hand(twice, to)
    assert refused.value.code == code
    assert twice.deployer().serving("shop").identity == V1


def test_nothing_before_is_nothing_to_go_back_to(host: Host) -> None:
    with pytest.raises(errors.Refused, match="nothing was deployed here yet"):
        by_hand(host)
    host.deployer().deploy(order(V1))
    with pytest.raises(errors.Refused, match="nothing served here before"):
        by_hand(host)


def test_a_rollback_by_hand_that_is_killed_is_brought_to_its_end_by_the_agent(twice: Host, killed_at: Any) -> None:
    killed_at("switch.after")
    with pytest.raises(Killed):
        by_hand(twice)
    killed_at(None)
    agent = twice.deployer()
    [outcome] = agent.recover()
    assert (outcome.outcome, outcome.serving) == (Phase.DONE, V1)


def test_the_inventory_says_what_is_hot_cold_or_gone(host: Host) -> None:
    deployer = host.deployer(hot=60.0)
    for image in (V1, V2, V3):
        deployer.deploy(order(image))
    assert [(one.identity, one.how) for one in deployer.inventory("shop")] == [(V2, "hot"), (V1, "cold")]
    host.target.drop(names.keep_tag("shop", "main", V1))
    del host.target.images[V1]
    assert [one.how for one in deployer.inventory("shop")] == ["hot", "gone"]


def test_a_rollback_finds_its_image_by_the_tag_that_kept_it(host: Host) -> None:
    """An engine may forget the digest an image was pulled by; the registry is not asked, it may be down."""
    first, second = (f"sha256:{digit * 64}" for digit in "ab")
    for digest, image in ((first, V1), (second, V2)):
        host.target.remote[f"registry.test:5000/shop@{digest}"] = ImageFacts(
            image, (f"registry.test:5000/shop@{digest}",)
        )
    deployer = host.deployer()
    deployer.deploy(from_registry(first))
    deployer.deploy(from_registry(second))
    del host.target.images[f"registry.test:5000/shop@{first}"]
    host.target.images[V1] = ImageFacts(V1)
    host.target.remote.clear()
    assert by_hand(host).serving == first
    assert ("pull", first) not in host.target.calls[3:]
