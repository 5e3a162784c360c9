"""`why`: what a run waits for and who is in the way, in words, on the page and for programs (R71)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from keepflow.engine import commands, enrol, pausing
from keepflow.web.answers import why
from keepflow.wire import api
from tests.engine.test_concurrency import grouped
from tests.engine.test_dispatch import flow, push
from tests.engine.world import World


@pytest.fixture
def world(tmp_path: Any) -> Any:
    """A master whose agents are played."""
    made = World(tmp_path)
    yield made
    made.close()


@pytest.fixture
def told(world: World) -> Callable[[int], api.Why]:
    """Ask why a run of keepwork is as it is."""

    def ask(number: int) -> api.Why:
        with world.read() as conn:
            found = why.of_run(conn, world.find_project("keepwork"), number)
        assert found is not None
        return found

    return ask


def test_r71_a_run_says_how_many_are_in_front_of_it_and_who(world: World, told: Callable[[int], api.Why]) -> None:
    project, repository = world.project()
    world.agent(slots=5)
    for number in range(8):
        push(world, project, repository, grouped("queue"), f"branch-{number}")
    found = told(8)
    assert (found.state, found.reason_code) == ("waiting", "queue")
    assert found.reason == "waits for keepwork#7 of group slot to end"
    assert found.meaning == "it waits for an older run that must not run at the same time"
    assert found.ahead[:2] == ["behind 7 runs of group slot", "keepwork#1 running"]
    assert found.ahead[-1] == "and 2 more"
    assert told(1).ahead == []


def test_r71_a_job_says_with_what_the_agents_are_busy(world: World, told: Callable[[int], api.Why]) -> None:
    other, other_repository = world.project("other")
    project, repository = world.project()
    world.agent(slots=1)
    push(world, other, other_repository, flow("queue"))
    push(world, project, repository, flow("queue"))
    found = told(1)
    assert found.reason == "waits for a free slot on local (1 of 1 busy by other#1)"
    assert found.agents == ["agent local is busy with other#1 (1 of 1 slots)"]
    assert [(job.key, job.code) for job in found.jobs] == [("steps", "no-slot")]


def test_r71_a_job_says_since_when_the_agent_is_offline(world: World, told: Callable[[int], api.Why]) -> None:
    project, repository = world.project()
    world.agent().leave()
    push(world, project, repository, flow("queue"))
    found = told(1)
    assert found.reason == "no agent with capability run is connected (local is offline: the connection broke)"
    [line] = found.agents
    assert line.startswith("agent local is offline since 1970-01-01 ")
    assert line.endswith("UTC (the connection broke)")
    assert "keepflow agent ls" in found.help


def test_r71_a_job_says_who_drained_the_agent(world: World, told: Callable[[int], api.Why]) -> None:
    project, repository = world.project()
    agent = world.agent()
    world.call(lambda tx: enrol.drain(tx, world.master, agent.id, "ann", world.tick()))
    push(world, project, repository, flow("queue"))
    found = told(1)
    assert found.reason == "every agent that could take it is drained (local by ann)"
    assert found.agents == ["agent local is drained by ann: it takes nothing new"]


def test_r71_a_run_says_who_paused_its_project(world: World, told: Callable[[int], api.Why]) -> None:
    project, repository = world.project()
    world.agent()
    world.call(lambda tx: pausing.pause(tx, world.master, world.find_project("keepwork"), "a move", "bo", world.tick()))
    push(world, project, repository, flow("queue"))
    found = told(1)
    assert found.reason == "keepwork is paused by bo: a move"
    assert (found.meaning, found.help) == (
        "somebody holds its project back",
        "keepflow resume, by the holder or an admin",
    )


def test_r71_an_ended_run_says_why_it_ended_and_names_nobody_in_the_way(
    world: World, told: Callable[[int], api.Why]
) -> None:
    project, repository = world.project()
    push(world, project, repository, flow("queue"), "one")
    push(world, project, repository, flow("queue"), "two")
    run = world.run(2)
    world.call(lambda tx: commands.cancel_run(tx, world.master, run.id, "bo", world.tick()))
    found = told(2)
    assert (found.reason, found.meaning) == ("cancelled by bo", "a person ended it")
    assert (found.ahead, found.agents) == ([], [])
    assert found.started == "branch 'two' fits push: **"
    agent = world.agent()
    [order] = agent.orders()
    agent.finish(order, "failed", code="exit", sentence="step 1/1 make failed with exit code 2", exit_code=2)
    found = told(1)
    assert found.reason == "steps: step 1/1 make failed with exit code 2"
    assert found.meaning == "the script failed: its exit code was not 0"
