"""Runs of a graph of jobs: what starts at once, what a failure does to the others, and what becomes of the run."""

from __future__ import annotations

import pytest

from keepflow import errors
from keepflow.core.states import State
from keepflow.engine import approvals, commands
from keepflow.wire.messages import RunEnded, RunJob
from tests.engine.world import PlayedAgent, World

HEAD = "version: 1\nflows:\n  dev:\n    on: {push: dev}\n"
GRAPH = (
    HEAD
    + """\
    jobs:
      unit: {steps: [{run: a}]}
      style: {steps: [{run: b}], allow_failure: true}
      package: {needs: [unit, style], steps: [{run: c}]}
      ship: {needs: package, steps: [{run: d}]}
      mail: {needs: [unit, package, ship], when: failure, steps: [{run: e}]}
      clean: {needs: [ship, mail], when: always, steps: [{run: f}]}
"""
)


def start(world: World, text: str = GRAPH, slots: int = 4) -> PlayedAgent:
    """Push a flow file to an agent with free slots."""
    project, repository = world.project()
    agent = world.agent(slots=slots)
    world.send(project, world.pushed(world.push(project, repository, {".keepflow.yml": text})))
    return agent


def orders(agent: PlayedAgent) -> dict[str, RunJob]:
    return {order.job: order for order in agent.orders() if isinstance(order, RunJob)}


def states(world: World) -> dict[str, State]:
    return {key: job.state for key, job in world.jobs().items()}


def test_r20_jobs_that_need_nothing_of_each_other_run_at_once(world: World) -> None:
    agent = start(world)
    first = orders(agent)
    assert list(first) == ["unit", "style"]
    agent.finish(first["style"])
    assert orders(agent) == {}
    assert world.jobs()["package"].reason == "waits for unit and style"
    agent.finish(first["unit"])
    assert list(orders(agent)) == ["package"]


def test_r20_a_chain_behind_a_failure_ends_at_once_and_every_job_says_why(world: World) -> None:
    agent = start(world)
    first = orders(agent)
    agent.finish(first["unit"], state="failed", code="exit", sentence="your script failed (exit 2)")
    found = world.jobs()
    assert (found["package"].state, found["package"].reason) == (State.SKIPPED, "because unit failed")
    assert found["ship"].reason == "because package was skipped"
    assert (found["ship"].reason_code, found["style"].state) == ("need-failed", State.RUNNING)


def test_r22_a_failure_starts_its_handler_and_the_run_stays_a_failed_one(world: World) -> None:
    agent = start(world)
    first = orders(agent)
    agent.finish(first["unit"], state="failed", code="exit", sentence="your script failed (exit 2)")
    agent.finish(first["style"])
    agent.finish(orders(agent)["mail"])
    agent.finish(orders(agent)["clean"])
    assert (world.run().state, world.run().reason) == (State.FAILED, "unit: your script failed (exit 2)")


def test_r22_without_a_failure_the_handler_is_skipped_and_what_comes_always_runs(world: World) -> None:
    agent = start(world)
    while handed := orders(agent):
        for order in handed.values():
            agent.finish(order)
    assert states(world)["mail"] is State.SKIPPED
    assert states(world)["clean"] is State.SUCCEEDED
    assert (world.run().state, world.run().reason) == (State.SUCCEEDED, "")


def test_r21_a_job_may_fail_and_the_run_succeeds_and_says_so(world: World) -> None:
    agent = start(world)
    while handed := orders(agent):
        for order in handed.values():
            agent.finish(order, state="failed" if order.job == "style" else "succeeded", code="exit", sentence="x")
    assert states(world)["style"] is State.FAILED
    assert states(world)["ship"] is State.SUCCEEDED
    assert (world.run().state, world.run().reason) == (State.SUCCEEDED, "style failed, and may (allow_failure)")


def test_r32_variables_reach_the_jobs_that_need_the_one_that_told_them_and_no_others(world: World) -> None:
    text = HEAD + "    jobs:\n"
    text += "".join(f"      {key}: {{steps: [{{run: x}}]}}\n" for key in ("a", "b"))
    text += "".join(
        f"      {key}: {{needs: {needs}, steps: [{{run: x}}]}}\n" for key, needs in (("c", "a"), ("d", "[b, c]"))
    )
    agent = start(world, text)
    first = orders(agent)
    assert [order.given for order in first.values()] == [{}, {}]
    agent.finish(first["a"], outputs={"VERSION": "1", "WHO": "a"})
    agent.finish(first["b"], outputs={"WHO": "b", "BIG": "x" * 70_000})
    second = orders(agent)
    assert second["c"].given == {"VERSION": "1", "WHO": "a"}
    agent.finish(second["c"], outputs={"WHO": "c"})
    assert orders(agent)["d"].given == {"VERSION": "1", "WHO": "c"}


def test_r19_a_stage_begins_after_the_success_of_the_one_before(world: World) -> None:
    text = (
        HEAD
        + """\
    stages: [build, test]
    jobs:
      unit: {stage: test, steps: [{run: c}]}
      one: {stage: build, steps: [{run: a}]}
      two: {stage: build, steps: [{run: b}]}
"""
    )
    agent = start(world, text)
    first = orders(agent)
    assert list(first) == ["one", "two"]
    agent.finish(first["one"])
    agent.finish(first["two"], state="failed", code="exit", sentence="x")
    assert orders(agent) == {}
    assert states(world) == {"one": State.SUCCEEDED, "two": State.FAILED, "unit": State.SKIPPED}
    assert world.run().state is State.FAILED


def test_r32_a_job_is_told_whose_files_it_goes_on_with_and_the_agent_when_nobody_does_any_more(world: World) -> None:
    agent = start(world)
    first = orders(agent)
    shared = first["unit"].shared
    assert shared is not None
    assert (shared.bases, shared.followers, shared.tracked, shared.lenient) == ((), 2, True, False)
    agent.finish(first["unit"], state="failed", code="exit", sentence="x")
    agent.finish(first["style"])
    mail = orders(agent)["mail"].shared
    assert mail is not None
    assert (mail.bases, mail.lenient) == (("unit",), True), "a job that never ran left no files"
    world.call(lambda tx: commands.cancel_run(tx, world.master, world.run().id, "ann", world.tick()))
    assert [(body.project, body.run) for body in agent.orders() if isinstance(body, RunEnded)] == [("keepwork", 1)]


def test_a_run_of_one_job_shares_nothing_and_its_end_is_not_told(world: World) -> None:
    agent = start(world, HEAD + "    steps: [{run: make}]\n")
    order = orders(agent)["steps"]
    assert order.shared is None
    agent.finish(order)
    assert agent.orders() == []


GATED = (
    HEAD
    + """\
    jobs:
      unit: {steps: [{run: a}]}
      ask: {needs: unit, approve: Is the demo over?}
      ship: {needs: ask, steps: [{run: b}]}
      tell: {needs: [unit, ask, ship], when: always, notify: team@example.org}
"""
)


def test_a_question_holds_no_agent_and_what_stands_behind_it_waits_for_the_answer(world: World) -> None:
    agent = start(world, GATED, slots=1)
    agent.finish(orders(agent)["unit"])
    assert orders(agent) == {}
    assert (world.run().state, world.run().reason) == (State.WAITING, "waits for a release manager: Is the demo over?")
    with pytest.raises(errors.Refused):
        answer(world, "unit")
    with pytest.raises(errors.Refused, match="its job ask does: name it, too"):
        world.call(lambda tx: commands.approve_run(tx, world.master, world.run().id, "bo", world.tick()))
    answer(world, "ask")
    with pytest.raises(errors.Refused):
        answer(world, "ask")
    agent.finish(orders(agent)["ship"])
    found = world.jobs()
    assert (found["ask"].state, found["ask"].reason) == (State.SUCCEEDED, "approved by bo")
    assert found["tell"].state is State.SUCCEEDED, "telling nobody changes no run"
    assert found["tell"].reason == "no channel in the server file reaches 'team@example.org'"
    assert world.run().state is State.SUCCEEDED


def test_a_question_nobody_answers_lapses_and_is_never_a_yes(world: World) -> None:
    agent = start(world, GATED)
    agent.finish(orders(agent)["unit"])
    approvals.sweep(world.master, world.now)
    assert states(world)["ask"] is State.WAITING
    approvals.sweep(world.master, world.tick(approvals.LAPSES_AFTER + 1_000_000))
    assert states(world) == {
        "unit": State.SUCCEEDED,
        "ask": State.FAILED,
        "ship": State.SKIPPED,
        "tell": State.SUCCEEDED,
    }
    assert (world.run().state, world.run().reason) == (State.FAILED, "ask: nobody approved it within a week")


def answer(world: World, job: str) -> None:
    world.call(lambda tx: approvals.approve(tx, world.master, world.run().id, job, "bo", world.tick()))
