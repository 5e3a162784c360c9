"""Runs that must not meet: never two of one group at once, the newest is never lost, no deploy is cut (R56)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from keepflow.core.events import Event, EventKind
from keepflow.core.flows import JobKind, Plan, PlannedJob, Step
from keepflow.core.states import FINAL, State
from keepflow.engine import commands, dispatch, runs
from keepflow.store import jobs, projects
from keepflow.store import runs as stored
from keepflow.store.runs import Run
from keepflow.wire import messages
from tests.engine.test_dispatch import flow, push
from tests.engine.world import PlayedAgent, World

_NAMES = itertools.count(1)


class Meetings(RuleBasedStateMachine):
    """Pushes to two flows and two branches, ends and cancels, in any order, under any mode."""

    world: World
    agent: PlayedAgent

    @initialize(mode=st.sampled_from(("queue", "latest", "cancel")), group=st.sampled_from(("", "slot")))
    def begin(self, mode: str, group: str) -> None:
        name = f"p{next(_NAMES)}"
        self.world.call(lambda tx: projects.add(tx.conn, self.world.tick(), name, "/nowhere", "github", images=[]))
        self.project = self.world.find_project(name)
        self.mode, self.group = mode, group
        self.orders: list[messages.RunJob] = []
        self.stopped: set[int] = set()

    @rule(flow=st.sampled_from("ab"), branch=st.sampled_from("xy"))
    def push(self, flow: str, branch: str) -> None:
        step = Step("run", "make", {"script": "make"})
        made = (PlannedJob("one", JobKind.SCRIPT, steps=(step,)), PlannedJob("two", JobKind.SCRIPT, ("one",), (step,)))
        plan = Plan(flow, made, self.mode, group=self.group)
        event = Event(EventKind.PUSH, f"refs/heads/{branch}", "a" * 40)

        def add(tx: Any) -> None:
            now = self.world.tick()
            run_id = runs.add(tx, self.world.master, self.project, event, plan, trust="other", why="", now=now)
            dispatch.advance(tx, self.world.master, run_id, now)

        self.world.call(add)
        self.hear()

    @rule(which=st.integers(0, 5), good=st.booleans())
    def finish(self, which: int, good: bool) -> None:
        if self.orders:
            order = self.orders.pop(which % len(self.orders))
            state = "cancelled" if order.fence in self.stopped else "succeeded" if good else "failed"
            self.agent.finish(order, state, code="" if good else "exit", sentence="")
            self.hear()

    @rule(which=st.integers(0, 8))
    def cancel(self, which: int) -> None:
        live = [run for run in self.all_runs() if run.state not in FINAL]
        if live:
            run = live[which % len(live)]
            self.world.call(lambda tx: commands.cancel_run(tx, self.world.master, run.id, "bo", self.world.tick()))
            self.hear()

    @invariant()
    def never_two_of_one_line_at_once(self) -> None:
        if not hasattr(self, "project"):
            return
        with self.world.read() as conn:
            held = {job.run_id for job in self._held(conn)}
        holders = [run for run in self.all_runs() if run.id in held]
        lines = [dispatch.line_of(run) for run in holders]
        assert len(lines) == len(set(lines)), [(run.number, run.flow, run.ref, run.state) for run in holders]

    @invariant()
    def the_newest_is_never_superseded(self) -> None:
        if not hasattr(self, "project"):
            return
        newest = {(run.flow, "" if run.group else run.ref): run for run in self.all_runs()}
        assert State.SUPERSEDED not in {run.state for run in newest.values()}

    def teardown(self) -> None:
        """Whatever happened, work that goes on reaches the end of every run."""
        if not hasattr(self, "project"):
            return
        for _ in range(200):
            if not self.orders:
                break
            self.finish(0, True)
        unfinished = [(run.number, run.state, run.reason) for run in self.all_runs() if run.state not in FINAL]
        assert not unfinished

    def hear(self) -> None:
        for body in self.agent.orders():
            if isinstance(body, messages.StopJob):
                self.stopped.add(body.fence)
            elif isinstance(body, messages.RunJob):
                self.orders.append(body)

    def all_runs(self) -> list[Run]:
        with self.world.read() as conn:
            return list(reversed(stored.page(conn, {self.project.id}, limit=1000)))

    def _held(self, conn: Any) -> Iterator[jobs.Job]:
        for attempt in jobs.running_attempts(conn, self.agent.id):
            yield jobs.by_id(conn, attempt.job_id)


def test_r56_never_two_of_one_group_at_once_and_the_newest_is_never_lost(world: World) -> None:
    Meetings.world, Meetings.agent = world, world.agent(slots=50)
    run_state_machine_as_test(Meetings, settings=settings(max_examples=25, stateful_step_count=20, deadline=None))


def grouped(mode: str, name: str = "dev", more: str = "") -> str:
    """Return a flow file whose flow is of group `slot`."""
    text = flow(mode).replace(f"concurrency: {mode}", f"concurrency: {{group: slot, mode: {mode}}}")
    return text.replace("  dev:", f"  {name}:") + more


def test_r56_a_named_group_holds_over_flows_and_branches(world: World) -> None:
    project, repository = world.project()
    agent = world.agent(slots=5)
    push(world, project, repository, grouped("queue"), "one")
    push(world, project, repository, grouped("queue", "other"), "two")
    assert world.states() == [State.RUNNING, State.WAITING]
    assert world.run(2).reason == "waits for keepwork#1 of group slot to end"
    [order] = agent.orders()
    agent.finish(order)
    assert world.states() == [State.SUCCEEDED, State.RUNNING]


def test_r56_the_newest_of_a_flow_takes_the_place_of_those_that_wait_in_its_group(world: World) -> None:
    project, repository = world.project()
    world.agent(slots=5)
    for branch in ("one", "two", "three"):
        push(world, project, repository, grouped("latest"), branch)
    assert world.states() == [State.RUNNING, State.SUPERSEDED, State.WAITING]
    assert world.run(2).reason == "superseded by keepwork#3, a newer run of dev in group slot"
    assert world.run(2).superseded_by == world.run(3).id


def test_r56_flows_of_one_group_are_not_taken_for_each_other(world: World) -> None:
    project, repository = world.project()
    world.agent(slots=5)
    for number, name in enumerate(("dev", "other", "dev", "third")):
        push(world, project, repository, grouped("latest", name), f"branch-{number}")
    assert world.states() == [State.RUNNING, State.WAITING, State.WAITING, State.WAITING]


@pytest.mark.parametrize("mode", ["latest", "cancel"])
def test_r56_a_deploy_is_never_cut_half_way(world: World, mode: str) -> None:
    project, repository = world.project()
    world.environment(project, "dev", ["dev"])
    agent = world.agent(capabilities=("run", "deploy"), slots=5)
    text = flow(mode, "[{run: make}, {deploy: dev}]")
    push(world, project, repository, text)
    [order] = agent.orders()
    built = messages.BuiltImage(
        origin="local", image_id="sha256:" + "1" * 64, repository="keepwork", reference="keepwork:1"
    )
    agent.finish(order, images=(built,))
    [deploy] = agent.orders()
    assert isinstance(deploy, messages.Deploy)
    push(world, project, repository, text)
    assert agent.orders() == [], "the newer run began, or the deployment was stopped"
    assert world.run(1).state not in FINAL
    assert world.run(2).reason == "waits for keepwork#1 of the same flow to end"
    body = messages.DeployFinished(
        fence=deploy.fence, deployment=deploy.deployment, at=1, outcome="failed", code="x", sentence="no"
    )
    agent.report(body)
    assert world.run(1).state in FINAL
    assert [found.run for found in agent.orders()] == [2]


def test_r56_a_run_that_was_approved_late_waits_for_the_newer_one_that_began_meanwhile(world: World) -> None:
    project, repository = world.project()
    agent = world.agent(slots=5)
    step = Step("run", "make", {"script": "make"})
    plan = Plan("dev", (PlannedJob("steps", JobKind.SCRIPT, steps=(step,)),), group="slot")
    event = Event(EventKind.PULL_REQUEST, "refs/pull/7/head", "a" * 40, number=7)

    def add(tx: Any) -> None:
        run_id = runs.add(tx, world.master, project, event, plan, trust="fork", why="", now=world.tick())
        dispatch.advance(tx, world.master, run_id, world.tick())

    world.call(add)
    push(world, project, repository, grouped("queue", "other"))
    [newer] = agent.orders()
    world.call(lambda tx: commands.approve_run(tx, world.master, world.run(1).id, "bo", world.tick()))
    assert agent.orders() == [], "two runs of one group were at work at once"
    assert world.run(1).reason == "waits for keepwork#2 of group slot to end"
    agent.finish(newer)
    assert [order.run for order in agent.orders()] == [1]
