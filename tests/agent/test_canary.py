"""Canaries on a host: step by step, steered by people, put back whole, on an engine in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from keepflow.agent import canary
from keepflow.agent.canary import Wish
from keepflow.agent.deployer import Deployer
from keepflow.agent.deployment import Deployment
from keepflow.agent.steering import Standpoint, understood
from keepflow.core import deploys
from keepflow.core.flows import Strategy
from keepflow.core.states import Phase
from keepflow.crypto import dsse, keys
from keepflow.errors import Refused
from keepflow.ports import Traffic, Visit
from keepflow.wire.orders import CANARY_TYPE, CanaryOrder
from tests.agent.deployed import V1, V2, Host, Visited, die, host, killed_at, order
from tests.agent.fakes import Told

__all__ = ["host", "killed_at"]  # fixtures

HOLD = 30  #: seconds; longer than any test waits, so that a step ends by a word


class Steered(Told):
    """A reporter that says a word as soon as a step begins."""

    def __init__(self, deployer: Deployer, words: dict[int, str]) -> None:
        super().__init__()
        self.deployer, self.words = deployer, words

    def phase(self, deployment: Deployment, phase: Phase, detail: str) -> None:
        """Remember the phase, and say the word for its step."""
        super().phase(deployment, phase, detail)
        step = canary.canary.step_of(detail)
        if phase == Phase.CANARY and step in self.words:
            self.deployer.wishes.put(deployment.id, Wish(self.words.pop(step), step, "bo"))


def canaried(hold: int = HOLD, steps: tuple[int, ...] = (5, 50), **container: Any) -> Deployment:
    return replace(order(V2, **container), canary=steps, canary_hold=hold)


def steered(host: Host, words: dict[int, str], visits: list[Visit] | None = None) -> tuple[Deployer, Visited]:
    """Return an agent that serves V1, and whose canary gets these words."""
    host.deployer().deploy(order(V1))
    deployer = host.deployer()
    deployer.proxy = proxy = Visited(host.root / "sw", visits or [])
    deployer.reporter = Steered(deployer, words)
    return deployer, proxy


def test_visitors_get_it_step_by_step_then_all_of_them(host: Host) -> None:
    deployer, proxy = steered(host, {5: "continue", 50: "continue"}, [Visit(1.0, 200, "green", "green")] * 7)
    wanted = canaried()
    outcome = deployer.deploy(wanted)
    assert (outcome.outcome, outcome.serving) == (Phase.DONE, V2)
    assert proxy.states == [
        Traffic("blue", counted=True),
        Traffic("blue", net=True, canary=5, counted=True),
        Traffic("blue", net=True, canary=50, counted=True),
        Traffic("green", net=True, counted=True),
        Traffic("green"),
    ]
    steps = outcome.receipt["canary"]
    assert [(step["percent"], step["visitors"]["requests"]) for step in steps] == [(5, 7), (50, 7)]
    assert outcome.receipt["probes"]["failed"] == 0
    told = [detail for _, phase, detail in deployer.reporter.phases if phase == Phase.CANARY]
    assert told == ["5 % of visitors for 30 s", "50 % of visitors for 30 s"]


def test_a_step_ends_by_itself_when_its_time_is_over(host: Host) -> None:
    deployer, _ = steered(host, {})
    outcome = deployer.deploy(canaried(hold=1, steps=(10,)))
    assert outcome.outcome == Phase.DONE
    assert outcome.receipt["canary"][0]["seconds"] >= 1


def test_called_off_everything_is_as_it_was_and_nobody_is_blamed(host: Host) -> None:
    deployer, proxy = steered(host, {5: "continue", 50: "abort"})
    outcome = deployer.deploy(canaried())
    assert (outcome.outcome, outcome.code, outcome.serving) == (Phase.REVERTED, "canary-aborted", V1)
    assert "bo called the canary off at 50 %" in outcome.sentence
    assert proxy.states[-1] == Traffic("blue")
    assert host.running() == {"blue": V1}
    assert outcome.receipt["probes"]["failed"] == 0
    assert [step["percent"] for step in outcome.receipt["canary"]] == [5]


def test_a_held_step_goes_on_only_when_somebody_says_so(host: Host) -> None:
    deployer, _ = steered(host, {5: "hold"})

    class Holding(Steered):
        def phase(self, deployment: Deployment, phase: Phase, detail: str) -> None:
            super().phase(deployment, phase, detail)
            if "held by" in detail:
                self.deployer.wishes.put(deployment.id, Wish("continue", 1, "an old word"))
                self.deployer.wishes.put(deployment.id, Wish("continue", 5, "bo"))

    deployer.reporter = reporter = Holding(deployer, {5: "hold"})
    outcome = deployer.deploy(canaried(hold=1, steps=(5,)))
    assert outcome.outcome == Phase.DONE
    assert "5 % of visitors held by bo" in [detail for _, _, detail in reporter.phases]


def test_a_canary_in_which_visitors_fail_is_put_back(host: Host) -> None:
    deployer, _ = steered(host, {})
    deployer.proxy.record = [Visit(1.0, 200, "blue", "blue")] * 400 + [Visit(1.0, 500, "green", "green")] * 20
    outcome = deployer.deploy(canaried())
    assert (outcome.outcome, outcome.code, outcome.serving) == (Phase.REVERTED, "visitors-failing", V1)
    assert host.state() == Traffic("blue")


@pytest.mark.parametrize("settings", [{"strategy": Strategy.STOP_FIRST}, {}])
def test_without_an_old_one_beside_it_there_is_no_canary_and_the_receipt_says_so(
    host: Host, settings: dict[str, Any]
) -> None:
    if settings:
        host.deployer().deploy(order(V1))
    outcome = host.deployer().deploy(canaried(**settings))
    assert (outcome.outcome, outcome.receipt["canary"]) == (Phase.DONE, [])
    assert outcome.receipt["notes"] == ["no canary: nothing served beside the new release"]


@pytest.mark.parametrize("point", ["deploy.canary", "canary.before", "canary.after"])
def test_killed_in_a_step_it_is_put_back(host: Host, killed_at: Callable[[str | None], None], point: str) -> None:
    host.deployer().deploy(order(V1))
    killed_at(point)
    die(host, canaried())
    killed_at(None)
    (outcome,) = host.deployer().recover()
    expected = Phase.REVERTED if point == "canary.after" else Phase.FAILED
    assert (outcome.outcome, outcome.code, outcome.serving) == (expected, "agent-restarted", V1)
    assert host.state() == Traffic("blue")
    assert host.running() == {"blue": V1}


# --- words about it ---------------------------------------------------------------------------------------------------

MASTER = keys.generate()
HERE = Standpoint("prod-1", "key-1", (MASTER.public,), now=1_000, running={"d-1": 7})


def word(key: keys.PrivateKey = MASTER, kind: str = CANARY_TYPE, **changes: Any) -> dict[str, Any]:
    """Return an envelope with a word about a canary."""
    said = {
        "word": "hold", "percent": 5, "deployment": "d-1", "fence": 7, "agent": "prod-1", "agent_key": "key-1",
        "by": "bo", "issued_at": 900, "expires_at": 2_000,
    }  # fmt: skip
    payload = {**CanaryOrder(**said).model_dump(mode="json"), **changes}
    return dsse.seal(deploys.canonical(payload), kind, key)


def test_a_signed_word_about_a_running_deployment_is_obeyed() -> None:
    assert understood(word(), HERE) == ("d-1", Wish("hold", 5, "bo"))


@pytest.mark.parametrize(
    ("envelope", "code"),
    [
        (word(keys.generate()), "bad-signature"),
        (word(kind="application/vnd.keepflow.deploy-order.v1+json"), "bad-signature"),
        (word(word="reboot"), "bad-order"),
        (word(critical=["word", "color"]), "critical"),
        (word(critical=7), "bad-order"),
        (word(agent="prod-2"), "other-agent"),
        (word(agent_key="key-2"), "other-agent"),
        (word(deployment="d-2"), "not-running"),
        (word(fence=6), "not-running"),
        (word(expires_at=1_000), "expired"),
    ],
)
def test_any_other_word_is_not(envelope: dict[str, Any], code: str) -> None:
    with pytest.raises(Refused) as refused:
        understood(envelope, HERE)
    assert refused.value.code == code
