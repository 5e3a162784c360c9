"""A run again is a new run of the same commit: numbered, linked, and without work that counts already (R59)."""

from __future__ import annotations

import pytest

from keepflow import errors
from keepflow.core.states import State
from keepflow.engine import rerunning
from keepflow.store import releases, runs
from keepflow.wire import messages
from tests.engine.test_dispatch import flow, push
from tests.engine.world import PlayedAgent, World

GRAPH = """
version: 1
flows:
  dev:
    on: {push: '**'}
    jobs:
      lint: {steps: [run: make lint]}
      build: {steps: [run: make]}
      test: {needs: build, steps: [run: make test]}
"""


def work_of(agent: PlayedAgent) -> list[messages.RunJob]:
    """Take the jobs that an agent was given."""
    return [body for body in agent.orders() if isinstance(body, messages.RunJob)]


def again(world: World, number: int, *, failed: bool = False, first: str | None = None) -> int:
    """Run a run again as bo."""
    run = world.run(number)
    return int(
        world.call(lambda tx: rerunning.rerun(tx, world.master, run.id, "bo", world.tick(), failed=failed, first=first))
    )


def test_r59_all_of_a_run_again_is_a_new_run_of_the_same_commit(world: World) -> None:
    project, repository = world.project()
    agent = world.agent()
    sha = push(world, project, repository, flow("queue"))
    [order] = agent.orders()
    agent.finish(order, "failed", code="exit", sentence="no")
    before = world.run(1)
    push(world, project, repository)  # the branch has moved on
    agent.finish(agent.orders()[0])
    assert again(world, 1) == 3
    [order] = agent.orders()
    assert (order.run, order.sha, order.attempt) == (3, sha, 1)
    made = world.run(3)
    assert (made.rerun_of, made.why, made.event) == (before.id, "keepwork#1 again, asked for by bo", before.event)
    assert world.run(1) == before, "the run that had ended was changed"
    with world.read() as conn:
        assert [run.number for run in runs.again(conn, before.id)] == [3]
    agent.finish(order)
    assert world.run(3).state is State.SUCCEEDED


def test_r59_only_what_did_not_succeed_runs_again(world: World) -> None:
    project, repository = world.project()
    agent = world.agent(slots=5)
    push(world, project, repository, GRAPH)
    for order in work_of(agent):
        if order.job == "lint":
            agent.finish(order, "failed", code="exit", sentence="no")
        else:
            agent.finish(order, outputs={"VERSION": "7"})
    agent.finish(work_of(agent)[0])
    assert world.run(1).state is State.FAILED
    again(world, 1, failed=True)
    orders = work_of(agent)
    assert [order.job for order in orders] == ["lint"]
    jobs = world.jobs(2)
    assert (jobs["build"].state, jobs["build"].reason) == (State.SUCCEEDED, "succeeded in keepwork#1")
    assert jobs["build"].outputs == {"VERSION": "7"}
    agent.finish(orders[0])
    assert world.run(2).state is State.SUCCEEDED


def test_r59_from_one_job_on_with_those_whose_files_it_goes_on_with(world: World) -> None:
    project, repository = world.project()
    agent = world.agent(slots=5)
    push(world, project, repository, GRAPH)
    for _ in range(2):
        for order in work_of(agent):
            agent.finish(order)
    assert world.run(1).state is State.SUCCEEDED
    again(world, 1, first="test")
    orders = work_of(agent)
    assert [order.job for order in orders] == ["build"]
    agent.finish(orders[0])
    assert [order.job for order in work_of(agent)] == ["test"]
    assert world.run(2).why == "keepwork#1 again from test on, asked for by bo"


def test_r59_a_failed_deploy_again_brings_the_image_that_was_built_before(world: World) -> None:
    project, repository = world.project()
    world.environment(project, "dev", ["dev"])
    agent = world.agent(capabilities=("run", "deploy"))
    push(world, project, repository, flow("queue", "[{run: make}, {deploy: dev}]"))
    image = "sha256:" + "1" * 64
    built = messages.BuiltImage(origin="local", image_id=image, repository="keepwork", reference="keepwork:1")
    agent.finish(agent.orders()[0], images=(built,))
    for number in (1, 2, 3):
        [deploy] = agent.orders()
        assert isinstance(deploy, messages.Deploy)
        agent.report(
            messages.DeployFinished(
                fence=deploy.fence, deployment=deploy.deployment, at=1, outcome="failed", code="x", sentence="no"
            )
        )
        assert world.run(number).state is State.FAILED
        with world.read() as conn:
            assert len(releases.of_run(conn, world.run(number).id)) == (1 if number == 1 else 0)
        again(world, number, failed=True)


def test_r59_a_rerun_of_older_code_takes_nobodys_place(world: World) -> None:
    project, repository = world.project()
    agent = world.agent()
    push(world, project, repository, flow("latest"))
    agent.finish(agent.orders()[0])
    push(world, project, repository)
    push(world, project, repository)
    again(world, 1)
    assert world.states()[1:] == [State.RUNNING, State.WAITING, State.WAITING]


def test_r59_what_cannot_run_again_is_refused_with_the_reason(world: World) -> None:
    project, repository = world.project()
    agent = world.agent()
    push(world, project, repository, flow("queue"))
    with pytest.raises(errors.Refused, match="has not ended; cancel it first: keepflow cancel keepwork#1"):
        again(world, 1)
    agent.finish(agent.orders()[0])
    with pytest.raises(errors.Refused, match="every job of keepwork#1 succeeded"):
        again(world, 1, failed=True)
    with pytest.raises(errors.NotFound, match="has no job 'step' \\(did you mean 'steps'\\?\\)"):
        again(world, 1, first="step")
    push(world, project, repository, "flows: [broken\n")
    with pytest.raises(errors.Refused, match="ended before it had jobs"):
        again(world, 2)
