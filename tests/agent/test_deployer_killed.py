"""The deployer killed at any moment, on an engine in memory; `tests/faults/test_killed.py` does it to a real one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keepflow import errors
from keepflow.agent.deployment import Deployment
from keepflow.core.flows import Strategy
from keepflow.core.states import PHASE_ORDER, Phase
from keepflow.ports import Traffic
from tests.agent.deployed import V1, V2, V3, Host, Killed, die, host, killed_at, order
from tests.agent.fakes import Told

__all__ = ["host", "killed_at"]

_PHASES = [f"deploy.{phase}" for phase in ("accepted", "preflight", "pulling", "preparing", "starting", "gating")]
_COUNTING = ["count.before", "count.after"]
_BEFORE = [*_COUNTING, "keep.before", "keep.after", "create.before", "create.after", "start.before", "start.after"]
_AFTER = [
    "deploy.proving",
    "deploy.watching",
    "deploy.draining",
    "drop-net.before",
    "stop-old.before",
    "stop-old.after",
]


@pytest.mark.parametrize("point", ["flags.after-rename", "switch.after", *_AFTER])
def test_killed_after_the_switch_and_the_new_one_died_too_it_is_put_back(
    host: Host, killed_at: Any, point: str
) -> None:
    host.deployer().deploy(order(V1))
    killed_at(point)
    die(host, order(V2))
    killed_at(None)
    host.target.crash("kf-shop-main-green")
    (outcome,) = host.deployer().recover()
    assert (outcome.outcome, outcome.serving) == (Phase.REVERTED, V1)
    assert host.running() == {"blue": V1}


def test_f10_an_engine_that_is_down_while_the_old_one_is_put_away_leaves_it_for_later(host: Host) -> None:
    deployer = host.deployer()
    deployer.deploy(order(V1))

    class Falls(Told):
        def phase(self, deployment: Deployment, phase: Phase, detail: str) -> None:
            host.target.down = phase == Phase.DRAINING

    deployer.reporter = Falls()
    lost = order(V2)
    outcome = deployer.deploy(lost)
    assert (outcome.outcome, outcome.serving) == (Phase.UNKNOWN, V2)
    assert "the old one is not put away yet" in outcome.sentence
    host.target.down = False
    (settled,) = host.deployer().recover()
    assert (settled.outcome, settled.serving) == (Phase.DONE, V2)
    assert host.running() == {"green": V2}


def test_f07_an_engine_that_is_down_at_start_decides_nothing(host: Host, killed_at: Any) -> None:
    host.deployer().deploy(order(V1))
    killed_at("deploy.gating")
    die(host, order(V2))
    killed_at(None)
    host.target.down = True
    with pytest.raises(errors.Unavailable):
        host.deployer().recover()
    host.target.down = False
    assert [one.outcome for one in host.deployer().recover()] == [Phase.FAILED]


_POINTS = [
    *_PHASES,
    *_BEFORE,
    *_AFTER,
    "switch.before",
    "switch.after",
    "flags.after-rename",
    "pause.after",
    "start-old.after",
    "deploy.outcome",
    None,
    None,
]
_story = st.lists(
    st.tuples(
        st.sampled_from([V1, V2, V3]),
        st.sampled_from(["ok", "ok", "exit", "sick"]),
        st.sampled_from(list(Strategy)),
        st.sampled_from(_POINTS),
    ),
    min_size=1,
    max_size=4,
)


@given(story=_story)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_happens_what_serves_is_the_last_good_release(
    tmp_path_factory: pytest.TempPathFactory, killed_at: Any, story: list[tuple[str, str, Strategy, str | None]]
) -> None:
    host = Host(tmp_path_factory.mktemp("story"))
    serving = None
    try:
        for image, mode, strategy, point in story:
            deployment = order(image, env={"MODE": mode}, strategy=strategy)
            killed_at(point)
            try:
                outcome = host.deployer().deploy(deployment)
            except Killed:
                killed_at(None)
                (outcome,) = host.deployer().recover()
            order_of = [PHASE_ORDER.index(Phase(name)) for name in host.told.names(deployment.id)]
            assert order_of == sorted(order_of), "phases are told forwards only"
            assert [name for name, _ in host.told.outcomes].count(deployment.id) == 1
            assert outcome.outcome in (Phase.DONE, Phase.FAILED, Phase.REVERTED)
            assert mode == "ok" or outcome.outcome != Phase.DONE
            serving = image if outcome.outcome == Phase.DONE else serving
            assert outcome.serving == serving
            assert set(host.running().values()) == ({serving} if serving else set())
            assert len(host.running()) <= 1
            policies = {one.policy for one in host.target.containers.values() if one.facts.running}
            assert policies <= {"unless-stopped"}, "whatever serves comes back after a reboot"
            state = host.state()
            assert state == (Traffic(next(iter(host.running()))) if serving else Traffic(None, maintenance=True))
            assert host.deployer().recover() == []
    finally:
        host.target.close()
