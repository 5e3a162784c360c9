"""Further tries at a script job are new attempts with logs of their own, and nobody else is tried twice (R59)."""

from __future__ import annotations

from typing import Any

from keepflow.core.states import State
from keepflow.engine import commands, enrol, retrying, schedule
from keepflow.store import jobs
from keepflow.wire import messages
from tests.engine.test_dispatch import push
from tests.engine.world import PlayedAgent, World

SECOND = 1_000_000


def flow(retry: str) -> str:
    """Return a flow file whose jobs are tried again by this rule."""
    return f"version: 1\nflows:\n  dev:\n    on: {{push: '**'}}\n    retry: {retry}\n    steps: [{{run: make}}]\n"


def begin(world: World, retry: str) -> PlayedAgent:
    """Push once."""
    project, repository = world.project()
    agent = world.agent()
    push(world, project, repository, flow(retry))
    return agent


def fail(agent: PlayedAgent, order: Any, exit_code: int = 1) -> None:
    """Let a job fail as a script does."""
    agent.finish(
        order, "failed", code="exit", sentence=f"step 1/1 make failed with exit code {exit_code}", exit_code=exit_code
    )


def attempts(world: World) -> list[jobs.Attempt]:
    """Return the attempts at the only job."""
    with world.read() as conn:
        return jobs.attempts_of(conn, world.jobs()["steps"].id)


def test_r59_a_failed_script_is_tried_again_until_it_succeeds(world: World) -> None:
    agent = begin(world, "2")
    [first] = agent.orders()
    fail(agent, first)
    [second] = agent.orders()
    assert (first.attempt, second.attempt) == (1, 2)
    assert second.fence > first.fence
    assert second.sha == first.sha
    assert world.run().state is State.RUNNING
    agent.finish(second)
    assert world.run().state is State.SUCCEEDED
    found = attempts(world)
    assert [(one.state, one.exit_code) for one in found] == [(State.FAILED, 1), (State.SUCCEEDED, None)]
    assert [one.log_path for one in found] == ["keepwork/1/steps.1.log", "keepwork/1/steps.2.log"]


def test_r59_the_last_try_decides(world: World) -> None:
    agent = begin(world, "1")
    for code in (3, 4):
        [order] = agent.orders()
        fail(agent, order, code)
    assert agent.orders() == []
    assert (world.run().state, world.run().reason) == (State.FAILED, "steps: step 1/1 make failed with exit code 4")
    assert [one.exit_code for one in attempts(world)] == [3, 4]


def test_r59_only_the_exit_codes_that_were_named_are_tried_again(world: World) -> None:
    agent = begin(world, "{max: 3, on_exit: [75]}")
    [order] = agent.orders()
    fail(agent, order, 75)
    [order] = agent.orders()
    fail(agent, order, 1)
    assert agent.orders() == []
    assert world.run().state is State.FAILED


def test_r59_a_try_may_have_to_wait_and_says_so(world: World) -> None:
    agent = begin(world, "{max: 1, delay: 30s}")
    [order] = agent.orders()
    fail(agent, order)
    assert agent.orders() == []
    run = world.run()
    assert (run.state, run.reason_code) == (State.WAITING, "retry")
    assert run.reason == "try 2 of 2 follows in 30s, because step 1/1 make failed with exit code 1"
    retrying.sweep(world.master, world.tick(29 * SECOND))
    assert agent.orders() == []
    retrying.sweep(world.master, world.tick(SECOND))
    [order] = agent.orders()
    assert order.attempt == 2
    retrying.sweep(world.master, world.tick(SECOND))
    assert agent.orders() == []
    agent.finish(order)
    assert world.run().state is State.SUCCEEDED


def test_r59_a_lost_job_is_tried_again_elsewhere_only_when_the_flow_says_lost(world: World) -> None:
    for number, (retry, tries) in enumerate((("2", 0), ("{max: 2, on: lost}", 1)), 1):
        project, repository = world.project(f"shop-{number}")
        agent = world.agent(f"first-{number}")
        push(world, project, repository, flow(retry))
        [order] = agent.orders()
        agent.leave()
        gone = world.tick(schedule.LOST_AFTER + SECOND)
        other = world.agent(f"other-{number}")
        world.call(lambda tx, now=gone: enrol.silent(tx, world.master, now, schedule.SILENT_AFTER, schedule.LOST_AFTER))
        second = other.orders()
        assert len(second) == tries
        # What the first one says now changes nothing.
        agent.finish(order)
        run = world.runs()[-1]
        assert run.state is (State.RUNNING if tries else State.LOST)
        for again in second:
            other.finish(again)
        assert world.runs()[-1].state is (State.SUCCEEDED if tries else State.LOST)
        other.leave()


def test_r59_a_cancelled_run_is_not_tried_again(world: World) -> None:
    agent = begin(world, "{max: 5, delay: 10s}")
    [order] = agent.orders()
    fail(agent, order)
    run = world.run()
    answer = world.call(lambda tx: commands.cancel_run(tx, world.master, run.id, "bo", world.tick()))
    assert answer.word == "cancelled"
    retrying.sweep(world.master, world.tick(60 * SECOND))
    assert agent.orders() == []
    assert world.run().state is State.CANCELLED


def test_r59_what_no_agent_may_run_is_not_tried_again(world: World) -> None:
    agent = begin(world, "5")
    [order] = agent.orders()
    agent.report(messages.JobRefused(fence=order.fence, at=1, code="unknown-step", sentence="no"))
    assert agent.orders() == []
    assert world.run().state is State.FAILED
