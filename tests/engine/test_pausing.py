"""A project that somebody holds back, and whose jobs come first when agents are few."""

from __future__ import annotations

import pytest

from keepflow import errors
from keepflow.core.states import State
from keepflow.engine import pausing
from keepflow.store import events
from tests.engine.test_dispatch import flow, push
from tests.engine.test_rerunning import GRAPH, work_of
from tests.engine.world import World


def pause(world: World, name: str = "keepwork", why: str = "the registry is being moved", by: str = "bo") -> None:
    project = world.find_project(name)
    world.call(lambda tx: pausing.pause(tx, world.master, project, why, by, world.tick()))


def resume(world: World, name: str = "keepwork", by: str = "bo", admin: bool = False) -> None:
    project = world.find_project(name)
    world.call(lambda tx: pausing.resume(tx, world.master, project, by, admin, world.tick()))


def test_nothing_new_of_a_paused_project_begins_and_everybody_reads_why(world: World) -> None:
    project, repository = world.project()
    other, other_repository = world.project("other")
    agent = world.agent(slots=5)
    pause(world)
    push(world, project, repository, flow("queue"))
    push(world, other, other_repository, flow("queue"))
    assert [order.project for order in agent.orders()] == ["other"]
    run = world.runs()[0]
    assert (run.state, run.reason_code) == (State.WAITING, "paused")
    assert run.reason == "keepwork is paused by bo: the registry is being moved"
    resume(world)
    assert [order.project for order in agent.orders()] == ["keepwork"]
    with world.read() as conn:
        told = [(event.kind, event.actor) for event in events.since(conn, 0, 1000) if event.kind.startswith("project-")]
    assert told == [("project-paused", "bo"), ("project-resumed", "bo")]


def test_what_is_at_work_goes_on_and_the_jobs_after_it_wait(world: World) -> None:
    project, repository = world.project()
    agent = world.agent(slots=5)
    push(world, project, repository, GRAPH)
    orders = work_of(agent)
    pause(world)
    assert world.run().state is State.RUNNING
    for order in orders:
        agent.finish(order)
    assert work_of(agent) == []
    run = world.run()
    assert (run.state, run.reason_code) == (State.WAITING, "paused")
    resume(world)
    [order] = work_of(agent)
    agent.finish(order)
    assert world.run().state is State.SUCCEEDED


def test_a_job_that_waits_for_an_agent_is_not_handed_out_either(world: World) -> None:
    project, repository = world.project()
    push(world, project, repository, flow("queue"))
    pause(world)
    agent = world.agent()
    assert agent.orders() == []
    assert world.run().reason_code == "paused"
    resume(world)
    assert [order.run for order in agent.orders()] == [1]


def test_only_the_holder_or_an_admin_lets_a_project_go_on(world: World) -> None:
    world.project()
    with pytest.raises(errors.UsageError, match="say why"):
        pause(world, why="  ")
    with pytest.raises(errors.Refused, match="is not paused"):
        resume(world)
    pause(world)
    pause(world, why="it takes longer")
    with pytest.raises(errors.Refused, match="keepwork is paused by bo: it takes longer"):
        pause(world, by="cy")
    with pytest.raises(errors.Denied, match="bo or an admin lets go of it"):
        resume(world, by="cy")
    resume(world, by="cy", admin=True)
    assert world.find_project("keepwork").paused_by is None


def test_r55_urgent_jobs_get_the_free_agent_first_and_nobody_starves(world: World) -> None:
    agent = world.agent(slots=1)
    names = {}
    for name, priority in (("busy", "normal"), ("low", "low"), ("normal", "normal"), ("high", "high")):
        project, repository = world.project(name)
        text = flow("queue").replace("concurrency: queue", f"concurrency: queue\n    priority: {priority}")
        push(world, project, repository, text)
        names[name] = (project, repository, text)
    world.tick(3601 * 1_000_000)
    push(world, *names["high"][:2])
    order_of_work = []
    for _ in range(5):
        [order] = agent.orders()
        order_of_work.append((order.project, order.run))
        agent.finish(order)
    assert order_of_work == [("busy", 1), ("high", 1), ("normal", 1), ("low", 1), ("high", 2)]
