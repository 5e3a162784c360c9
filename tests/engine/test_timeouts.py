"""A run that takes longer than its flow allows is ended, with all that it still does; deployments go on (R58)."""

from __future__ import annotations

import pytest

from keepflow.core.states import State
from keepflow.engine import approvals, expiring
from keepflow.store import events
from keepflow.wire import messages
from tests.engine.test_dispatch import push
from tests.engine.world import World

SECOND = 1_000_000
FLOW = """
version: 1
image: keepwork
flows:
  dev:
    on: {push: '**'}
    timeout: 10m
    steps: [{run: make, timeout: 5m}, {deploy: dev}]
"""


def test_r58_a_job_is_told_its_limits(world: World) -> None:
    project, repository = world.project()
    agent = world.agent()
    push(world, project, repository, FLOW)
    [order] = agent.orders()
    assert (order.timeout, [step.timeout for step in order.steps]) == (600, [300])
    agent.finish(order, "failed")
    push(world, project, repository, FLOW.replace("    timeout: 10m\n", ""))
    assert [order.timeout for order in agent.orders()] == [7200]


def test_r58_a_run_that_takes_too_long_fails_and_its_script_is_stopped(world: World) -> None:
    project, repository = world.project()
    agent = world.agent()
    push(world, project, repository, FLOW)
    [order] = agent.orders()
    agent.report(messages.JobStarted(fence=order.fence, at=1))
    begun = world.run().started_at
    assert begun is not None
    expiring.sweep(world.master, begun + 599 * SECOND)
    assert world.run().state is State.RUNNING
    expiring.sweep(world.master, begun + 600 * SECOND)
    run = world.run()
    assert (run.state, run.reason_code) == (State.FAILED, "timeout")
    assert run.reason == "the run did not end within 10m, the timeout of flow dev"
    assert {job.state for job in world.jobs().values()} == {State.FAILED}
    [stop] = agent.orders()
    assert (stop.type, stop.fence, stop.code) == ("stop-job", order.fence, "timeout")
    agent.finish(order, "cancelled", code="timeout", sentence=stop.sentence)
    assert world.run() == run, "the end of its script changed a run that had ended"


def test_r58_waiting_for_an_agent_is_not_counted(world: World) -> None:
    project, repository = world.project()
    push(world, project, repository, FLOW)
    expiring.sweep(world.master, world.tick(3600 * SECOND))
    assert world.run().state is State.WAITING
    world.agent()
    assert world.run().state is State.RUNNING
    assert world.run().ends_by == pytest.approx(world.now + 600 * SECOND, abs=SECOND)


def test_r58_a_deployment_that_was_sent_goes_on(world: World) -> None:
    project, repository = world.project()
    world.environment(project, "dev", ["dev"])
    agent = world.agent(capabilities=("run", "deploy"))
    push(world, project, repository, FLOW)
    [order] = agent.orders()
    image = "sha256:" + "1" * 64
    built = messages.BuiltImage(origin="local", image_id=image, repository="keepwork", reference="keepwork:1")
    agent.finish(order, images=(built,))
    [deploy] = agent.orders()
    expiring.sweep(world.master, world.tick(601 * SECOND))
    assert world.run().state not in (State.FAILED, State.CANCELLED)
    expiring.sweep(world.master, world.tick(601 * SECOND))
    with world.read() as conn:
        told = [event for event in events.since(conn, 0, 1000) if event.kind == "run-timeout"]
    assert [event.data for event in told] == [{"word": "too-late"}]
    assert deploy.type == "deploy"


def test_r58_the_time_of_a_person_who_is_asked_is_not_the_run_s(world: World) -> None:
    project, repository = world.project()
    agent = world.agent()
    text = FLOW.replace("{deploy: dev}", "{approve: is it good}, {run: make more}")
    push(world, project, repository, text)
    agent.finish(agent.orders()[0])
    assert world.run().state is State.WAITING
    for _ in range(3):
        expiring.sweep(world.master, world.tick(601 * SECOND))
    assert world.run().state is State.WAITING
    key = next(key for key, job in world.jobs().items() if job.kind == "approve")
    run_id = world.run().id
    world.call(lambda tx: approvals.approve(tx, world.master, run_id, key, "bo", world.tick()))
    [order] = [body for body in agent.orders() if isinstance(body, messages.RunJob)]
    agent.report(messages.JobStarted(fence=order.fence, at=1))
    expiring.sweep(world.master, world.tick(601 * SECOND))
    assert (world.run().state, world.run().reason_code) == (State.FAILED, "timeout")
