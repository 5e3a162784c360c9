"""The deployer's rules: what a deployment does when all is well, and which are not taken on."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from keepflow import errors
from keepflow.agent.deployment import Deployment
from keepflow.agent.pulse import Pulse
from keepflow.core import names
from keepflow.core.flows import Strategy
from keepflow.core.states import PHASE_ORDER, Phase
from keepflow.ports import ImageFacts, RegistryLogin, Traffic
from tests.agent.deployed import V1, V2, V3, Host, from_registry, host, order
from tests.agent.fakes import Told

__all__ = ["host"]


def test_the_first_release_serves_in_blue_and_the_next_in_green(host: Host) -> None:
    deployer = host.deployer()
    first, second = order(V1), order(V2)
    assert deployer.deploy(first).outcome == Phase.DONE
    assert deployer.serving("shop").identity == V1
    outcome = deployer.deploy(second)
    assert (outcome.outcome, outcome.serving) == (Phase.DONE, V2)
    assert host.running() == {"green": V2}
    assert host.state() == Traffic("green")
    assert host.told.names(second.id) == [
        phase.value for phase in PHASE_ORDER if phase not in (Phase.QUEUED, Phase.OFFERED, Phase.STOPPING, Phase.CANARY)
    ]
    assert [name for name, _ in host.told.outcomes] == [first.id, second.id]


def test_the_receipt_states_what_was_proven(host: Host) -> None:
    deployer = host.deployer()
    deployer.deploy(order(V1))
    receipt = deployer.deploy(order(V2)).receipt
    assert (receipt["digest_before"], receipt["digest_after"], receipt["slot"]) == (V1, V2, "green")
    assert receipt["probes"]["sent"] > 0
    assert receipt["probes"]["failed"] == 0
    assert receipt["sockets"]["left"] == 0
    assert receipt["maintenance"] == 0
    assert set(receipt["phases"]) >= {"pulling", "gating", "switching", "proving", "watching", "draining"}
    json.dumps(receipt, allow_nan=False)


def test_deploying_what_serves_already_starts_a_fresh_container(host: Host) -> None:
    deployer = host.deployer()
    deployer.deploy(order(V1))
    before = deployer.serving("shop").container_id
    assert deployer.deploy(order(V1)).outcome == Phase.DONE
    assert deployer.serving("shop").container_id != before


def test_old_is_touched_only_after_new_serves(host: Host) -> None:
    deployer = host.deployer()
    deployer.deploy(order(V1))
    host.target.calls.clear()
    deployer.deploy(order(V2))
    green, blue = "kf-shop-main-green", "kf-shop-main-blue"
    assert host.target.calls == [("create", green), ("start", green), ("stop", blue)]
    host.target.calls.clear()
    deployer.deploy(order(V3))
    aside = ("remove", f"{blue}-aside")
    assert host.target.calls == [("create", blue), ("start", blue), ("stop", green), aside], "removing can wait"


def test_a_proven_container_gets_its_restart_policy_and_a_retired_one_loses_it(host: Host) -> None:
    deployer = host.deployer()
    deployer.deploy(order(V1))
    deployer.deploy(order(V2))
    policies = {name: one.policy for name, one in host.target.containers.items()}
    assert policies == {"kf-shop-main-blue": "no", "kf-shop-main-green": "unless-stopped"}


def test_stop_first_stops_the_old_behind_the_maintenance_page_and_says_for_how_long(host: Host) -> None:
    deployer = host.deployer()
    deployer.deploy(order(V1))
    host.target.calls.clear()
    second = order(V2, strategy=Strategy.STOP_FIRST)
    outcome = deployer.deploy(second)
    assert outcome.outcome == Phase.DONE
    acts = [act for act, _ in host.target.calls]
    assert acts.index("stop") < acts.index("start")
    assert outcome.receipt["maintenance"] > 0
    assert host.told.names(second.id).index("stopping") == host.told.names(second.id).index("starting") - 1
    assert host.state() == Traffic("green")


def test_an_image_by_digest_is_pulled_once_with_the_hosts_login_and_kept(host: Host) -> None:
    reference = f"registry.test:5000/shop@{V3}"
    host.target.remote[reference] = ImageFacts("sha256:" + "9" * 64, (reference,))
    host.policy = replace(host.policy, login=RegistryLogin("registry.test:5000", "pull", "x"))
    deployer = host.deployer()
    assert deployer.deploy(from_registry(V3)).receipt["pulled"]
    assert not deployer.deploy(from_registry(V3)).receipt["pulled"]
    assert [call for call in host.target.calls if call[0] == "pull"] == [("pull", V3)]
    assert names.keep_tag("shop", "main", V3) in host.target.tags


def test_only_images_of_the_last_releases_stay(host: Host) -> None:
    deployer = host.deployer(keep=2)
    for image in (V1, V2, V3):
        deployer.deploy(order(image))
    assert sorted(host.target.tags.values()) == [V2, V3]
    assert [one.identity for one in deployer.history("shop").previous] == [V2]


def test_a_hot_slot_is_kept_running_taken_by_a_rollback_and_stopped_when_its_time_is_over(host: Host) -> None:
    deployer = host.deployer(hot=60.0)
    deployer.deploy(order(V1))
    first = deployer.serving("shop").container_id
    deployer.deploy(order(V2))
    assert host.running() == {"blue": V1, "green": V2}
    rollback = deployer.deploy(order(V1, action="rollback"))
    assert rollback.receipt["hot_start"]
    assert deployer.serving("shop").container_id == first
    deployer.tend()
    assert host.running() == {"blue": V1, "green": V2}
    history = deployer.history("shop")
    deployer.places.instance("shop", "main").save_history(replace(history, retired_until=0))
    deployer.tend()
    assert host.running() == {"blue": V1}


def test_another_port_goes_into_the_idle_slot_only(host: Host) -> None:
    deployer = host.deployer()
    deployer.deploy(order(V1))
    assert deployer.deploy(order(V2, port=8100)).outcome == Phase.DONE
    front = deployer.places.instance("shop", "main").front()
    assert (front.blue_port, front.green_port) == (8099, 8100)
    assert deployer.serving("shop").healthy


def test_a_deployment_that_hangs_is_seen_and_one_that_waits_for_health_is_not(host: Host) -> None:
    """The watchdog's clock is the test's: within a phase it may stand still for what that phase may wait for."""
    now, seen = [0.0], []

    class Turning(Told):
        """Turns the clock whenever a phase is told, and looks at what the watchdog would see."""

        def phase(self, deployment: Deployment, phase: Phase, detail: str) -> None:
            began = now[0]
            now[0] = began + 300
            waits = deployer.pulse.hung()
            now[0] = began + 3600
            seen.append((waits, deployer.pulse.hung()))
            now[0] = began

    host.told = Turning()
    deployer = host.deployer()
    deployer.pulse = Pulse(lambda: now[0])
    assert deployer.deploy(order(V1)).outcome is Phase.DONE
    assert len(seen) > 5
    assert {tuple(waits) for waits, _ in seen} == {()}
    assert {tuple(hangs) for _, hangs in seen} == {("the deployment of shop/main",)}
    now[0] += 10**6
    assert deployer.pulse.hung() == []


def test_an_old_fence_a_known_deployment_and_a_used_nonce_are_refused(host: Host) -> None:
    deployer = host.deployer()
    done = order(V1)
    deployer.deploy(done)
    with pytest.raises(errors.Refused) as known:
        deployer.accept(replace(done, fence=order(V1).fence))
    with pytest.raises(errors.Refused) as replayed:
        deployer.accept(replace(done, id="other", fence=order(V1).fence))
    with pytest.raises(errors.StaleFence):
        deployer.accept(replace(order(V2), fence=done.fence))
    assert (known.value.code, replayed.value.code) == ("known-deployment", "replayed-nonce")
    assert host.deployer().journals.highest_fence("shop", "main") == done.fence
    found = deployer.journals.find(done.id)
    assert found is not None
    assert found[2] is not None
    assert found[2].outcome == Phase.DONE


def test_a_second_deployment_while_one_is_under_way_is_refused(host: Host) -> None:
    deployer = host.deployer()
    accepted = deployer.accept(order(V1))
    with pytest.raises(errors.Refused) as busy:
        host.deployer().accept(order(V2))
    assert busy.value.code == "instance-busy"
    assert deployer.carry_out(accepted).outcome == Phase.DONE


def test_a_service_the_hosts_file_does_not_name_is_refused(host: Host) -> None:
    with pytest.raises(errors.UsageError) as refused:
        host.deployer().accept(replace(order(V1), service="other"))
    assert refused.value.code == "unknown-service"
