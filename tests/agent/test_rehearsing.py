"""Images laid ahead, rehearsals, and the room they need: nothing of it may touch what serves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from keepflow.agent import policy
from keepflow.config.agent_file import load_agent
from keepflow.core import names
from keepflow.core.flows import Strategy, Volume
from keepflow.core.states import Phase
from keepflow.ports import ImageFacts, Traffic
from tests.agent.deployed import V1, V2, V3, Host, Killed, from_registry, host, killed_at, order
from tests.agent.orders import FILE, Court

__all__ = ["host", "killed_at"]
REPOSITORY = "registry.test:5000/shop"
NEXT = f"sha256:{'a' * 64}"


@pytest.fixture
def serving(host: Host) -> Host:
    """A host that serves V1 in blue, with one more release in the registry."""
    assert host.deployer().deploy(order(V1)).outcome == Phase.DONE
    host.target.remote[f"{REPOSITORY}@{NEXT}"] = ImageFacts(V3, (f"{REPOSITORY}@{NEXT}",), 42_000_000)
    host.target.calls.clear()
    return host


def as_it_was(host: Host) -> bool:
    return host.state() == Traffic("blue") and host.running() == {"blue": V1}


def test_a_staged_image_is_on_the_disk_and_nothing_else_happened(serving: Host) -> None:
    outcome = serving.deployer().deploy(from_registry(NEXT, action="stage"))
    assert (outcome.outcome, outcome.serving) == (Phase.DONE, V1)
    assert outcome.sentence == f"{NEXT[:19]} is on this host (42 MB)"
    assert serving.target.calls == [("pull", NEXT)]
    assert as_it_was(serving)
    assert [(one.identity, one.how) for one in serving.deployer().inventory("shop")] == [(NEXT, "staged")]


def test_a_promote_of_a_staged_image_pulls_nothing(serving: Host) -> None:
    serving.deployer().deploy(from_registry(NEXT, action="stage"))
    serving.target.remote.clear()
    outcome = serving.deployer().deploy(from_registry(NEXT))
    assert (outcome.outcome, outcome.receipt["pulled"]) == (Phase.DONE, False)


def test_a_staged_image_outlives_another_deploy(serving: Host) -> None:
    serving.deployer().deploy(from_registry(NEXT, action="stage"))
    serving.deployer().deploy(order(V2))
    assert names.keep_tag("shop", "main", NEXT) in serving.target.tags


def test_an_image_that_cannot_be_staged_is_a_failure_that_touched_nothing(serving: Host) -> None:
    serving.target.remote.clear()
    outcome = serving.deployer().deploy(from_registry(NEXT, action="stage"))
    assert (outcome.outcome, outcome.code) == (Phase.FAILED, "image-missing")
    assert as_it_was(serving)


def test_a_rehearsal_starts_gates_and_removes_while_visitors_see_nothing(serving: Host) -> None:
    outcome = serving.deployer().deploy(order(V2, action="rehearse"))
    assert (outcome.outcome, outcome.serving) == (Phase.DONE, V1)
    assert "healthy in" in outcome.sentence
    assert [call for call, _ in serving.target.calls] == ["create", "start", "stop", "remove"]
    assert as_it_was(serving)
    assert serving.deployer().history("shop").current.identity == V1
    assert serving.deployer().deploy(order(V2)).outcome == Phase.DONE


@pytest.mark.parametrize("mode", ["exit", "sick", "no-start"])
def test_a_release_that_would_not_have_lived_fails_its_rehearsal(serving: Host, mode: str) -> None:
    outcome = serving.deployer().deploy(order(V2, action="rehearse", env={"MODE": mode}))
    assert outcome.outcome == Phase.FAILED
    assert as_it_was(serving)
    assert list(serving.target.containers) == ["kf-shop-main-blue"]


def test_a_rehearsal_takes_the_slot_of_the_hot_one_and_says_so(serving: Host) -> None:
    hot = serving.deployer(hot=60.0)
    hot.deploy(order(V2))
    assert [one.how for one in hot.inventory("shop")] == ["hot"]
    outcome = hot.deploy(order(V3, action="rehearse"))
    assert "a rollback is cold now" in outcome.receipt["notes"][0]
    assert [(one.identity, one.how) for one in hot.inventory("shop")] == [(V1, "cold"), (V3, "staged")]
    assert hot.tend() == []


@pytest.mark.parametrize(
    ("volumes", "allowed"),
    [((), False), ((Volume("data", "/d"),), False), ((Volume("data", "/d", shared=True),), True)],
)
def test_what_must_not_run_twice_is_not_rehearsed(serving: Host, volumes: Any, allowed: bool) -> None:
    rehearsal = order(V2, action="rehearse", strategy=Strategy.STOP_FIRST, volumes=volumes)
    outcome = serving.deployer().deploy(rehearsal)
    assert (outcome.code == "cannot-run-twice") is not allowed
    assert as_it_was(serving)


@pytest.mark.parametrize("point", ["deploy.gating", "remove-rehearsed.before", "remove-rehearsed.after"])
def test_a_rehearsal_that_was_killed_leaves_nothing(serving: Host, killed_at: Any, point: str) -> None:
    killed_at(point)
    with pytest.raises(Killed):
        serving.deployer().deploy(order(V2, action="rehearse"))
    killed_at(None)
    [outcome] = serving.deployer().recover()
    assert (outcome.outcome, outcome.code) == (Phase.FAILED, "agent-restarted")
    assert as_it_was(serving)
    assert list(serving.target.containers) == ["kf-shop-main-blue"]


# --- room -------------------------------------------------------------------------------------------------------------


def test_a_pull_that_would_eat_the_reserve_fails_before_anything_is_touched(serving: Host) -> None:
    serving.target.room = 1000
    outcome = serving.deployer(reserve=5000).deploy(from_registry(NEXT))
    assert (outcome.outcome, outcome.code) == (Phase.FAILED, "disk-full")
    assert "reserve: in agent.yml" in outcome.sentence
    assert serving.target.calls == []
    assert as_it_was(serving)


def test_an_image_on_the_disk_needs_no_room(serving: Host) -> None:
    serving.target.room = 0
    assert serving.deployer(reserve=5000).deploy(order(V2)).outcome == Phase.DONE


def test_only_what_was_promised_to_nobody_makes_room(serving: Host) -> None:
    serving.deployer().deploy(order(V2))
    kept = set(serving.target.tags)
    left = [names.keep_tag("shop", "main", f"sha256:{digit * 64}") for digit in "cde"]
    serving.target.tags |= dict.fromkeys(left, V3)
    serving.target.tags["somebody/else:1"] = V3
    serving.target.room = 5000 + 100 * (len(kept) + 1)
    assert serving.deployer(reserve=5000).deploy(from_registry(NEXT)).outcome == Phase.DONE
    assert kept < set(serving.target.tags)
    assert "somebody/else:1" in serving.target.tags
    assert not set(left) & set(serving.target.tags)


def test_an_order_to_stage_may_be_refused_by_the_host() -> None:
    court = Court()
    assert isinstance(policy.check(court.sign(court.order(action="stage")), court.facts), policy.Accepted)
    refusing = replace(court, file=load_agent(FILE.replace("hot: 0", "hot: 0\n    prestage: false")))
    for action, accepted in (("stage", False), ("rehearse", True), ("deploy", True)):
        verdict = policy.check(refusing.sign(refusing.order(action=action)), refusing.facts)
        assert isinstance(verdict, policy.Accepted) is accepted
