"""Several agents: labels, slots, drains, turns, jobs that are lost, and agents that come back too late."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keepflow import errors
from keepflow.core.states import State
from keepflow.engine import enrol, schedule, workspaces
from keepflow.store import jobs
from keepflow.store.projects import Project
from keepflow.wire import messages
from tests.engine.world import PlayedAgent, World

SECOND = 1_000_000
TWO = """version: 1
flows:
  plain: {on: {push: dev}, steps: [{run: make}]}
  gpu: {on: {push: gpu}, labels: [gpu], steps: [{run: train}]}
"""


def push(world: World, project: Project, repository: Path, branch: str, text: str = TWO) -> None:
    sha = world.push(project, repository, {".keepflow.yml": text, "n": f"{branch} {world.now}"}, branch)
    world.send(project, world.pushed(sha, branch))


def names(agent: PlayedAgent) -> list[str]:
    return [f"{order.project}#{order.run} {order.job}" for order in agent.orders()]


def drain(world: World, agent: PlayedAgent, by: str = "ann") -> None:
    world.call(lambda tx: enrol.drain(tx, world.master, agent.id, by, world.tick()))


def test_r42_a_job_goes_to_an_agent_with_its_labels_and_says_who_has_them(world: World) -> None:
    project, repository = world.project()
    plain = world.agent("plain")
    push(world, project, repository, "gpu")
    assert world.run().reason == "no agent has the label gpu; an agent's own file gives it labels"
    gpu = world.agent("big", labels=("gpu", "fast"))
    assert names(plain) == []
    [order] = gpu.orders()
    gpu.finish(order)
    gpu.leave()
    push(world, project, repository, "gpu")
    assert world.run(2).reason.startswith("no agent with the label gpu is connected (big is offline: ")


def test_r42_labels_stand_at_a_job_or_at_the_flow(world: World) -> None:
    project, repository = world.project()
    gpu, plain = world.agent("gpu", labels=("gpu",), slots=3), world.agent("plain", slots=3)
    arm = world.agent("arm", labels=("arm",), slots=3)
    text = """version: 1
flows:
  all:
    on: {push: dev}
    labels: [gpu]
    jobs:
      one: {steps: [{run: make}]}
      two: {labels: arm, steps: [{run: make}]}
      three: {steps: [{run: make}]}
      four: {needs: one, labels: arm, steps: [{run: make}]}
"""
    push(world, project, repository, "dev", text)
    [one, three] = gpu.orders()
    assert (one.job, three.job, names(plain), names(arm)) == ("one", "three", [], ["keepwork#1 two"])
    gpu.finish(one)
    assert world.jobs()["four"].reason == "agent gpu, which holds the files of this run, has not the label arm"


def test_r42_slots_are_never_exceeded_and_work_spreads(world: World) -> None:
    project, repository = world.project()
    agents = [world.agent(name, slots=slots) for name, slots in (("one", 1), ("two", 3))]
    text = "version: 1\nflows:\n  dev: {on: {push: '**'}, steps: [{run: make}]}\n"
    for number in range(6):
        push(world, project, repository, f"b{number}", text.replace("  dev: {", "  dev: {concurrency: latest, "))
    assert [len(agent.orders()) for agent in agents] == [1, 3]


def test_r55_a_project_with_one_push_does_not_wait_behind_one_with_many(world: World) -> None:
    agent = world.agent(slots=1)
    many, few = world.project("many"), world.project("few")
    text = "version: 1\nflows:\n  dev: {on: {push: '**'}, concurrency: latest, steps: [{run: make}]}\n"
    for number in range(5):
        push(world, *many, f"b{number}", text)
    push(world, *few, "dev", text)
    [order] = agent.orders()
    agent.finish(order)
    assert names(agent) == ["few#1 steps"]


def test_r42_a_drained_agent_gets_nothing_new_and_ends_the_runs_that_began_on_it(world: World) -> None:
    project, repository = world.project()
    agent = world.agent()
    text = """version: 1
flows:
  dev:
    on: {push: dev}
    jobs: {one: {steps: [{run: make}]}, two: {needs: one, steps: [{run: make}]}}
"""
    push(world, project, repository, "dev", text)
    [first] = agent.orders()
    drain(world, agent)
    other, place = world.project("other")
    push(world, other, place, "dev", text)
    assert world.runs()[-1].reason == "every agent that could take it is drained (local by ann)"
    agent.finish(first)
    [second] = [order for order in agent.orders() if order.job == "two"]
    assert second.project == "keepwork"
    agent.finish(second)
    assert not [order for order in agent.orders() if order.project == "other"]
    world.call(lambda tx: enrol.undrain(tx, world.master, agent.id, "ann", world.tick()))
    assert [order.job for order in agent.orders() if order.project == "other"] == ["one"]


@settings(max_examples=15)
@given(
    st.lists(st.sampled_from(["free", "busy", "offline", "drained"]), min_size=1, max_size=4),
    st.lists(st.integers(0, 4), min_size=1, max_size=8),
)
def test_r55_a_job_for_a_busy_or_offline_agent_stops_no_other_job(
    tmp_path_factory: pytest.TempPathFactory, conditions: list[str], wanted: list[int]
) -> None:
    """Each agent has a label of its own; what is pushed for one that is free is with it at once, whatever waits."""
    world = World(tmp_path_factory.mktemp("world"))
    try:
        flows = "".join(
            f"  f{n}: {{on: {{push: 'l{n}/*'}}, labels: [l{n}], concurrency: latest, steps: [{{run: make}}]}}\n"
            for n in range(5)
        )
        project, repository = world.project()
        agents = [world.agent(f"a{n}", labels=(f"l{n}",), slots=20) for n in range(len(conditions))]
        for number, (agent, condition) in enumerate(zip(agents, conditions, strict=True)):
            if condition == "busy":
                agent.connect(labels=(f"l{number}",), slots=0)
            elif condition == "offline":
                agent.leave()
            elif condition == "drained":
                drain(world, agent)
        for turn, number in enumerate(wanted):
            push(world, project, repository, f"l{number}/{turn}", f"version: 1\nflows:\n{flows}")
        for number, condition in enumerate(conditions):
            expected = wanted.count(number) if condition == "free" else 0
            assert len(agents[number].orders()) == expected, condition
        for run in world.runs():
            assert (run.state is State.RUNNING) or run.reason
    finally:
        world.close()


def lose(world: World, agent: PlayedAgent) -> None:
    agent.leave()
    world.tick(schedule.LOST_AFTER + SECOND)
    world.call(lambda tx: enrol.silent(tx, world.master, world.now, schedule.SILENT_AFTER, schedule.LOST_AFTER))


@pytest.mark.parametrize(
    ("steps", "again"),
    [
        ("[{run: make}]", False),
        ("[{run: make, idempotent: true}]", True),
        ("[{run: make, idempotent: true}, {run: ship}]", False),
        ("[{run: make, idempotent: true}, {run: test, idempotent: true}]", True),
    ],
)
def test_r54_a_lost_job_says_why_and_is_tried_again_only_where_its_steps_are_idempotent(
    world: World, steps: str, again: bool
) -> None:
    project, repository = world.project()
    first = world.agent("first")
    push(world, project, repository, "dev", f"version: 1\nflows:\n  dev: {{on: {{push: dev}}, steps: {steps}}}\n")
    assert names(first) == ["keepwork#1 steps"]
    lose(world, first)
    job = world.jobs()["steps"]
    with world.read() as conn:
        [attempt] = jobs.attempts_of(conn, job.id)
    assert (attempt.state, attempt.reason_code) == (State.LOST, "lost")
    assert "agent first was silent for 601 s" in attempt.reason
    assert job.state is (State.WAITING if again else State.LOST)
    second = world.agent("second")
    assert [found.attempt for found in second.orders()] == ([2] if again else [])


def test_r54_an_idempotent_job_is_tried_again_twice_and_then_stays_lost(world: World) -> None:
    project, repository = world.project()
    text = "version: 1\nflows:\n  dev: {on: {push: dev}, steps: [{run: make, idempotent: true}]}\n"
    push(world, project, repository, "dev", text)
    for name in ("one", "two", "three"):
        agent = world.agent(name)
        assert len(agent.orders()) == 1
        lose(world, agent)
    assert world.run().state is State.LOST
    assert world.agent("four").orders() == []


@pytest.mark.parametrize(
    "late",
    [
        lambda fence: messages.JobStarted(fence=fence, at=1),
        lambda fence: messages.StepStarted(fence=fence, index=0, name="x", at=1, offset=0),
        lambda fence: messages.StepFinished(fence=fence, index=0, at=1, exit_code=0, offset=9),
    ],
)
def test_f04_r74_an_agent_that_was_replaced_can_write_nothing_and_is_told_to_stop(world: World, late: Any) -> None:
    project, repository = world.project()
    stale = world.agent("stale")
    text = "version: 1\nflows:\n  dev: {on: {push: dev}, steps: [{run: make, idempotent: true}]}\n"
    push(world, project, repository, "dev", text)
    [order] = stale.orders()
    lose(world, stale)
    fresh = world.agent("fresh")
    [again] = fresh.orders()
    assert again.fence > order.fence
    before = world.jobs()["steps"]
    stale.connect(running=(order.fence,))
    stale.report(late(order.fence))
    assert [(body.fence, body.code) for body in stale.orders() if isinstance(body, messages.StopJob)] == [
        (order.fence, "stale-fence")
    ]
    with pytest.raises(errors.NotFound):
        world.master.logs.append(again.fence, 0, b"not its own\n", agent_id=stale.id).result(10)
    stale.report(messages.JobFinished(fence=order.fence, at=1, state="succeeded", log_bytes=0))
    stale.report(messages.JobFinished(fence=again.fence, at=1, state="failed", log_bytes=0))
    assert world.jobs()["steps"] == before, "what it says of its old attempt, or of another's, changes nothing"
    fresh.finish(again)
    assert world.run().state is State.SUCCEEDED


SPANS = """version: 1
flows:
  dev:
    on: {push: dev}
    jobs:
      make: {labels: linux, steps: [{run: make}]}
      train: {needs: make, labels: gpu, steps: [{run: train}]}
      check: {needs: make, labels: linux, steps: [{run: check}]}
      tell: {needs: train, when: failure, steps: [{run: tell}]}
"""


def hand_on(world: World, order: messages.RunJob) -> None:
    """Write down what the gateway does when an agent has pushed the files of a job."""
    world.call(lambda tx: workspaces.record(tx, world.master, world.run().id, order.fence, "c" * 40, 7, world.tick()))


def test_r32_a_job_leaves_the_agent_of_its_run_only_when_that_one_cannot_take_it(world: World) -> None:
    project, repository = world.project()
    linux, gpu = world.agent("linux", labels=("linux",), slots=5), world.agent("gpu", labels=("gpu",), slots=5)
    push(world, project, repository, "dev", SPANS)
    [make] = linux.orders()
    assert make.shared.hands_on
    hand_on(world, make)
    linux.finish(make)
    [train], [check] = gpu.orders(), linux.orders()
    assert (train.job, check.job) == ("train", "check")
    assert train.shared.away == {"make": messages.Away(fence=make.fence, commit="c" * 40)}
    assert (train.shared.hands_on, check.shared.hands_on) == (True, False)
    gpu.finish(train, "failed")
    [tell] = linux.orders()
    assert (tell.job, tell.shared.bases) == ("tell", ()), "what failed before it could hand anything on left no files"


def test_r32_files_that_were_not_handed_on_keep_a_job_waiting_with_the_reason(world: World) -> None:
    """As when an agent loses a label while a job runs that was to be followed there."""
    project, repository = world.project()
    agent = world.agent("linux", labels=("linux", "gpu"))
    other = world.agent("gpu", labels=("gpu",))
    push(world, project, repository, "dev", SPANS)
    [make] = agent.orders()
    assert not make.shared.hands_on
    agent.connect(labels=("linux",), running=(make.fence,))
    agent.finish(make)
    assert other.orders() == []
    assert world.jobs()["train"].reason == "agent linux, which holds the files of this run, has not the label gpu"


def test_r32_an_agent_that_is_away_and_could_take_a_job_is_waited_for(world: World) -> None:
    """Also when the files were handed on: what was built there is in its engine."""
    project, repository = world.project()
    linux, other = world.agent("linux", labels=("linux",), slots=0), world.agent("other", labels=("linux", "gpu"))
    linux.connect(labels=("linux",), slots=1)
    drain(world, other)
    push(world, project, repository, "dev", SPANS)
    [make] = linux.orders()
    hand_on(world, make)
    linux.leave()
    linux.finish(make)
    world.call(lambda tx: enrol.undrain(tx, world.master, other.id, "ann", world.tick()))
    assert [order.job for order in other.orders()] == ["train"]
    assert world.jobs()["check"].reason.startswith("agent linux, which holds the files of this run, is offline")


def test_an_attempt_that_has_ended_hands_nothing_on(world: World) -> None:
    project, repository = world.project()
    linux, _ = world.agent("linux", labels=("linux",)), world.agent("gpu", labels=("gpu",))
    push(world, project, repository, "dev", SPANS)
    [make] = linux.orders()
    linux.finish(make)
    with pytest.raises(errors.Refused) as caught:
        hand_on(world, make)
    assert caught.value.code == "stale"
