"""What nobody knows, settled by a person who looked: recorded with its reason, refused when the host says otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from keepflow.core.states import Phase, State
from keepflow.engine import settling
from keepflow.engine.settling import Serves
from keepflow.errors import NotFound, Refused, UsageError
from keepflow.store import environments, events, receipts
from keepflow.store.deployments import Deployment
from keepflow.store.projects import Project
from keepflow.wire import messages
from tests.engine.test_deploy_runs import BOTH, TEXT, _accept, _built, _deployment, _finish, place
from tests.engine.test_dispatch import push
from tests.engine.test_several_hosts import Farm
from tests.engine.world import PlayedAgent, World

__all__ = ["place"]  # the fixture


def settle(world: World, project: Project, serves: Serves, why: str = "I looked", host: str = "") -> Deployment:
    """Settle as bo."""
    with world.read() as conn:
        found = environments.by_name(conn, project.id, "dev")
    assert found is not None
    settled: Deployment = world.call(
        lambda tx: settling.settle(tx, world.master, found, host, serves, why, "bo", world.tick())
    )
    return settled


def unknown(world: World, place: tuple[Project, Path], *phases: str) -> tuple[PlayedAgent, messages.Deploy]:
    """Let a deployment come to an end that nobody knows."""
    agent = world.agent(**BOTH)
    push(world, *place, TEXT)
    deploy = _built(agent)
    _accept(agent, deploy)
    for phase in phases:
        agent.report(messages.DeployPhase(fence=deploy.fence, deployment=deploy.deployment, at=1, phase=phase))
    told: dict[str, Any] = {"code": "unknown", "sentence": "the host lost power"}
    agent.report(messages.DeployFinished(
        fence=deploy.fence, deployment=deploy.deployment, at=2, outcome="unknown", serving=None, **told
    ))  # fmt: skip
    assert _deployment(world).phase is Phase.UNKNOWN
    return agent, deploy


@pytest.mark.parametrize(
    ("serves", "phases", "phase", "state"),
    [
        ("new", (), Phase.DONE, State.SUCCEEDED),
        ("old", ("preflight",), Phase.FAILED, State.FAILED),
        ("old", ("switching",), Phase.REVERTED, State.FAILED),
    ],
)
def test_what_was_seen_ends_it_with_its_reason_and_lets_the_next_one_go(
    world: World, place: tuple[Project, Path], serves: Serves, phases: tuple[str, ...], phase: Phase, state: State
) -> None:
    agent, deploy = unknown(world, place, *phases)
    push(world, *place, TEXT)
    settle(world, place[0], serves, "curl answered\nwith  the version")
    settled = _deployment(world)
    assert (settled.phase, settled.reason_code) == (phase, "settled")
    assert settled.reason == f"settled by bo, the {serves} release serves: curl answered with the version"
    assert (world.run(1).state, world.run(2).state) == (state, State.RUNNING)
    with world.read() as conn:
        [event] = events.since(conn, 0, 1000, kind="deployment-settled")
    assert (event.actor, event.data["serves"], event.data["why"]) == ("bo", serves, "curl answered with the version")
    _finish(agent, deploy, "done")
    assert _deployment(world) == settled, "what the agent says later changes nothing; it would show as drift"


def test_nothing_counts_as_tested_by_a_persons_word_about_what_serves(world: World) -> None:
    farm = Farm(world, ("web-1",))
    farm.push("a")
    farm.finish("web-1", farm.asked()["web-1"], "unknown", "the host lost power")
    settle(world, farm.project, "new")
    farm.serve("b")
    with world.read() as conn:
        made = {
            letter: [one.passed for one in receipts.of_digest(conn, farm.project.id, "sha256:" + f"{letter}0" * 32)]
            for letter in "ab"
        }
    assert True in made["b"]
    assert True not in made["a"]


def test_a_host_that_says_otherwise_is_believed(world: World, place: tuple[Project, Path]) -> None:
    agent, deploy = unknown(world, place)
    state = messages.ServiceState(
        service="keepwork-dev", instance="main", environment="keepwork/dev", slot="blue",
        identity=_deployment(world).identity, deployment=deploy.deployment, since=1, healthy=True,
    )  # fmt: skip
    beat(world, agent, state.model_copy(update={"busy": True}))
    with pytest.raises(Refused, match="still deploying"):
        settle(world, place[0], "new")
    beat(world, agent, state)
    with pytest.raises(Refused, match="not the old one") as caught:
        settle(world, place[0], "old")
    assert caught.value.code == "contradicted"
    assert _deployment(world).phase is Phase.UNKNOWN
    assert settle(world, place[0], "new").id == deploy.deployment


def beat(world: World, agent: PlayedAgent, state: messages.ServiceState) -> None:
    """Let the host say what it serves."""
    from keepflow.engine import enrol

    told = messages.Heartbeat(at=world.tick(), services=(state,))
    world.call(lambda tx: enrol.heartbeat(tx, world.master, agent.id, told, world.tick()))


def test_only_what_is_unknown_is_settled_and_only_with_a_reason(world: World, place: tuple[Project, Path]) -> None:
    with pytest.raises(NotFound):
        settle(world, place[0], "new")
    agent, deploy = unknown(world, place)
    with pytest.raises(UsageError, match="how you know"):
        settle(world, place[0], "new", "  ")
    with pytest.raises(NotFound, match="on elsewhere"):
        settle(world, place[0], "new", host="elsewhere")
    _finish(agent, deploy, "done")
    with pytest.raises(NotFound):
        settle(world, place[0], "old")


def test_of_several_unknown_hosts_one_is_named(world: World) -> None:
    farm = Farm(world, ("web-1", "web-2"), max_unavailable=2)
    number = farm.push()
    for host, order in farm.asked().items():
        farm.finish(host, order, "unknown", "the host lost power")
    with pytest.raises(UsageError, match="web-1, web-2"):
        settle(world, farm.project, "new")
    settle(world, farm.project, "new", host="web-1")
    settle(world, farm.project, "new")
    assert {phase for phase, _ in farm.phases(number).values()} == {Phase.DONE}
    assert world.run(number).state is State.SUCCEEDED
