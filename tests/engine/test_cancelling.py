"""A cancel at any moment has a clear answer, and nothing that comes later changes its end (R57)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from keepflow.core.events import Event, EventKind
from keepflow.core.flows import JobKind, Plan, PlannedJob, Step
from keepflow.core.states import FINAL, State
from keepflow.engine import commands, dispatch, retrying, runs
from keepflow.store.writer import Tx
from keepflow.wire import messages
from tests.engine.test_dispatch import flow, push
from tests.engine.test_rerunning import GRAPH, work_of
from tests.engine.world import PlayedAgent, World

SECOND = 1_000_000


def cancel(world: World, number: int = 1) -> commands.Answer:
    """Cancel a run as bo."""
    run = world.run(number)
    answer: commands.Answer = world.call(lambda tx: commands.cancel_run(tx, world.master, run.id, "bo", world.tick()))
    return answer


def waits_for_approval(world: World) -> int:
    project, _ = world.project()
    plan = Plan("dev", (PlannedJob("steps", JobKind.SCRIPT, steps=(Step("run", "make", {"script": "make"}),)),))
    event = Event(EventKind.PULL_REQUEST, "refs/pull/7/head", "a" * 40, number=7)

    def add(tx: Tx) -> None:
        run_id = runs.add(tx, world.master, project, event, plan, trust="fork", why="", now=world.tick())
        dispatch.advance(tx, world.master, run_id, world.tick())

    world.call(add)
    return 1


def waits_for_an_agent(world: World) -> int:
    push(world, *world.project(), flow("queue"))
    return 1


def waits_in_line(world: World) -> int:
    project, repository = world.project()
    push(world, project, repository, flow("queue"), "one")
    push(world, project, repository, flow("queue"), "two")
    return 2


def waits_for_its_next_try(world: World) -> int:
    project, repository = world.project()
    agent = world.agent()
    push(world, project, repository, flow("queue", "[{run: make}]\n    retry: {max: 3, delay: 1m}"))
    agent.finish(agent.orders()[0], "failed", code="exit", sentence="no", exit_code=1)
    agent.leave()
    return 1


def waits_for_an_answer(world: World) -> int:
    agent = world.agent()
    push(world, *world.project(), flow("queue", "[{run: make}, {approve: is it good}, {run: make more}]"))
    agent.finish(work_of(agent)[0])
    agent.leave()
    return 1


@pytest.mark.parametrize(
    "moment", [waits_for_an_answer, waits_for_approval, waits_for_an_agent, waits_in_line, waits_for_its_next_try]
)
def test_r57_what_waits_is_cancelled_at_once_and_never_begins(world: World, moment: Callable[[World], int]) -> None:
    number = moment(world)
    answer = cancel(world, number)
    assert (answer.word, answer.sentence) == ("cancelled", "nothing of it was running; it is cancelled")
    run = world.run(number)
    assert (run.state, run.reason) == (State.CANCELLED, "cancelled by bo")
    assert {job.state for job in world.jobs(number).values()} <= FINAL
    agent = world.agent("late", slots=9)
    retrying.sweep(world.master, world.tick(120 * SECOND))
    assert number not in {order.run for order in work_of(agent)}
    assert world.run(number) == run


def running(world: World) -> tuple[PlayedAgent, messages.RunJob]:
    """Have the first of two jobs run."""
    agent = world.agent()
    push(world, *world.project(), flow("queue", "[{run: make}, {deploy: dev}]"))
    [order] = work_of(agent)
    agent.report(messages.JobStarted(fence=order.fence, at=1))
    return agent, order


@pytest.mark.parametrize("late", ["succeeded", "failed", "lost"])
def test_r57_a_job_that_ends_while_it_is_cancelled_never_overwrites_the_cancel(world: World, late: str) -> None:
    agent, order = running(world)
    answer = cancel(world)
    assert answer.word == "stopping"
    assert "told to stop the script and everything it started" in answer.sentence
    before = world.run()
    assert before.state is State.CANCELLED
    agent.finish(order, late, code="" if late == "succeeded" else "exit", sentence="")
    assert world.run() == before
    assert {job.state for job in world.jobs().values()} == {State.CANCELLED}


def test_r57_a_cancel_that_comes_with_the_end_says_so_and_changes_nothing(world: World) -> None:
    agent, order = running(world)
    agent.finish(order, "failed", code="exit", sentence="no")
    before = world.run()
    answer = cancel(world)
    assert (answer.word, answer.sentence) == ("ended", "it had ended before (failed)")
    assert world.run() == before


def test_r57_between_two_jobs_the_next_one_never_begins(world: World) -> None:
    agent = world.agent(slots=1)
    push(world, *world.project(), GRAPH)
    [first] = work_of(agent)
    agent.finish(first)
    [second] = work_of(agent)
    assert cancel(world).word == "stopping"
    agent.finish(second, "cancelled", code="cancelled", sentence="cancelled by bo")
    assert work_of(agent) == []
    assert world.run().state is State.CANCELLED
