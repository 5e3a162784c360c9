"""Who runs what, when, and why not yet: concurrency, claims, fences, sentences, cancelling (R19, R51-R54, P6)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from keepflow.core.states import State
from keepflow.crypto import tokens
from keepflow.engine import apply, commands, dispatch
from keepflow.engine.apply import REGISTRIES
from keepflow.store import events, jobs, releases, settings, steps
from keepflow.store.projects import Project
from keepflow.wire import messages
from keepflow.wire.desired import DesiredLogin, DesiredRegistry
from tests.engine.world import SCRIPT, World

DIGEST = "sha256:" + "d" * 64
IMAGE = "sha256:" + "1" * 64


def flow(concurrency: str = "latest", steps: str = "[{run: make}]", on: str = "{push: '**'}") -> str:
    """Return a flow file with one flow."""
    head = f"version: 1\nimage: keepwork\nflows:\n  dev:\n    on: {on}\n"
    return f"{head}    concurrency: {concurrency}\n    steps: {steps}\n"


def push(world: World, project: Project, repository: Path, text: str | None = None, branch: str = "dev") -> str:
    """Push once and tell the master."""
    sha = world.push(project, repository, {".keepflow.yml": text, "n": str(world.now)} if text else None, branch)
    world.send(project, world.pushed(sha, branch))
    return sha


def test_a_job_goes_to_the_agent_with_everything_it_needs_and_nothing_it_may_not_have(world: World) -> None:
    project, repository = world.project()
    world.environment(project, "dev", ["dev"])
    agent = world.agent()
    text = flow(steps="[{run: make}, {deploy: dev}]")
    sha = push(world, project, repository, text)
    [order] = agent.orders()
    assert isinstance(order, messages.RunJob)
    assert (order.project, order.run, order.flow, order.job, order.attempt) == ("keepwork", 1, "dev", "steps", 1)
    assert (order.sha, order.ref, order.trust, order.code_path) == (sha, "refs/heads/dev", "protected", "/git/keepwork")
    assert order.images == ("keepwork",)
    assert order.env["KEEPFLOW_EVENT"] == "push"
    assert order.env["KEEPFLOW_IMAGE"] == "keepwork"
    assert order.env["KEEPFLOW_ENVIRONMENT"] == "dev"
    assert order.env["KEEPFLOW_ACTOR"] == "ann"
    assert order.env["KEEPFLOW_RUN_URL"].endswith("/projects/keepwork/runs/1")
    assert [step.kind for step in order.steps] == ["run"]
    with world.read() as conn:
        attempt = jobs.attempt_by_token(conn, tokens.digest(order.token))
    assert attempt is not None
    assert attempt.fence == order.fence
    assert (world.run().state, world.jobs()["steps"].state) == (State.RUNNING, State.RUNNING)


@pytest.mark.parametrize(("branch", "lent"), [("dev", True), ("feature", False)])
def test_registry_logins_are_lent_to_branches_that_reach_an_environment_only(
    world: World, branch: str, lent: bool
) -> None:
    project, repository = world.project(git_token=world.master.vault.seal(b"git-token-1", "project/keepwork/git-token"))
    world.environment(project, "dev", ["dev"])
    registry = DesiredRegistry(
        address="registry.example.org:5000", push=DesiredLogin(username="push", password="pass-word-1")
    )
    sealed = {"main": apply._sealed(world.master, "main", registry)}
    world.call(lambda tx: settings.put(tx.conn, REGISTRIES, sealed))
    agent = world.agent()
    push(world, project, repository, flow(), branch)
    [order] = agent.orders()
    assert [login.password for login in order.logins] == (["pass-word-1"] if lent else [])
    assert order.env["KEEPFLOW_REGISTRY"] == "registry.example.org:5000"
    # What a job is not lent never reaches the machine that runs it, not even to be masked.
    assert "git-token-1" not in order.model_dump_json()
    assert ("pass-word-1" in order.model_dump_json()) is lent
    world.close()
    for path in (world.home / "home").rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert order.token.encode() not in content, path
            assert b"pass-word-1" not in content, path
            assert b"git-token-1" not in content, path


def test_a_job_waits_with_a_sentence_for_an_agent_for_a_slot_and_for_a_step_kind(world: World) -> None:
    project, repository = world.project()
    push(world, project, repository, flow("queue"), "one")
    assert (world.run(1).state, world.run(1).reason) == (State.WAITING, "no agent with capability run is connected")
    agent = world.agent(step_kinds=("push",))
    assert world.run(1).reason == "no connected agent knows the step run"
    agent.connect()
    assert world.run(1).state is State.RUNNING
    other, other_repository = world.project("other")
    push(world, other, other_repository, flow(), "two")
    with world.read() as conn:
        [waiting] = [job for job in jobs.of_runs(conn, [run.id for run in world.runs()]) if job.state is State.QUEUED]
    assert waiting.reason == "waits for a free slot on local (1 of 1 busy by keepwork#1)"
    [order] = agent.orders()
    agent.finish(order)
    assert [order.project for order in agent.orders()] == ["other"]
    agent.leave()
    push(world, project, repository, branch="one")
    assert (
        world.runs()[-1].reason == "no agent with capability run is connected (local is offline: the connection broke)"
    )


def test_r51_numbers_rise_per_project(world: World) -> None:
    project, repository = world.project()
    other, other_repository = world.project("other")
    for _ in range(2):
        push(world, project, repository, flow())
        push(world, other, other_repository, flow())
    assert [run.number for run in world.runs()] == [1, 1, 2, 2]


def test_f26_a_storm_of_pushes_to_a_latest_flow_builds_the_first_and_the_last(world: World) -> None:
    project, repository = world.project()
    agent = world.agent()
    shas = [push(world, project, repository, flow("latest")) for _ in range(20)]
    states = world.states()
    assert states[0] is State.RUNNING
    assert set(states[1:-1]) == {State.SUPERSEDED}
    assert states[-1] is State.WAITING
    assert world.run(2).reason.startswith("superseded by keepwork#3")
    assert world.run(20).reason == "waits for keepwork#1 of the same flow to end"
    agent.finish(agent.orders()[0])
    [order] = agent.orders()
    assert order.sha == shas[-1]
    agent.finish(order)
    assert world.states()[-1] is State.SUCCEEDED


def test_latest_and_cancel_look_at_one_branch_only(world: World) -> None:
    project, repository = world.project()
    world.agent(slots=5)
    for branch in ("one", "two", "three"):
        push(world, project, repository, flow("latest"), branch)
    assert world.states() == [State.RUNNING] * 3


def test_a_queue_runs_one_after_the_other_in_order(world: World) -> None:
    project, repository = world.project()
    agent = world.agent(slots=5)
    for branch in ("one", "two", "three"):
        push(world, project, repository, flow("queue"), branch)
    assert world.states() == [State.RUNNING, State.WAITING, State.WAITING]
    for number in (1, 2, 3):
        [order] = agent.orders()
        assert order.run == number
        agent.finish(
            order, "failed" if number == 2 else "succeeded", code="exit", sentence="your script failed (exit 2)"
        )
    assert world.states() == [State.SUCCEEDED, State.FAILED, State.SUCCEEDED]
    assert world.run(2).reason == "steps: your script failed (exit 2)"


def test_cancel_stops_the_script_of_the_older_run_and_the_new_one_starts(world: World) -> None:
    project, repository = world.project()
    agent = world.agent(slots=2)
    push(world, project, repository, flow("cancel"))
    [first] = agent.orders()
    push(world, project, repository, flow("cancel"))
    [stop] = agent.orders()
    assert isinstance(stop, messages.StopJob)
    assert (stop.fence, stop.code) == (first.fence, "superseded")
    assert world.states() == [State.SUPERSEDED, State.WAITING]
    assert world.run(2).reason == "waits until the script of keepwork#1, which was superseded, has stopped"
    agent.finish(first, "cancelled", code="superseded", sentence="stopped")
    [second] = agent.orders()
    assert world.states() == [State.SUPERSEDED, State.RUNNING]
    with world.read() as conn:
        attempt = jobs.attempt_by_fence(conn, first.fence)
    assert attempt is not None
    assert attempt.state is State.CANCELLED
    assert world.run(1).superseded_by == world.run(2).id
    agent.finish(second)
    assert world.states() == [State.SUPERSEDED, State.SUCCEEDED]


def test_flows_of_one_push_are_independent(world: World) -> None:
    project, repository = world.project()
    text = "version: 1\nflows:\n" + "".join(
        f"  {name}:\n    on: {{push: dev}}\n    steps: [{{run: make}}]\n" for name in ("one", "two")
    )
    agent = world.agent(slots=2)
    push(world, project, repository, text)
    first, second = agent.orders()
    agent.finish(first, "failed", code="exit", sentence="no")
    agent.finish(second)
    assert world.states() == [State.FAILED, State.SUCCEEDED]


def test_a_person_cancels_what_waits_and_what_runs(world: World) -> None:
    project, repository = world.project()
    push(world, project, repository, flow("queue"), "one")
    push(world, project, repository, flow("queue"), "two")

    def cancel(number: int) -> commands.Answer:
        run = world.run(number)
        return world.call(lambda tx: commands.cancel_run(tx, world.master, run.id, "bo", world.tick()))

    assert cancel(2).word == "cancelled"
    assert (world.run(2).state, world.run(2).reason) == (State.CANCELLED, "cancelled by bo")
    agent = world.agent()
    [order] = agent.orders()
    agent.report(messages.JobStarted(fence=order.fence, at=1))
    agent.report(messages.StepStarted(fence=order.fence, index=0, name="make", at=1, offset=0))
    assert cancel(1).word == "stopping"
    assert (world.run(1).state, world.jobs(1)["steps"].state) == (State.CANCELLED, State.CANCELLED)
    assert cancel(1).word == "ended"
    [stop] = agent.orders()
    assert isinstance(stop, messages.StopJob)
    # the agent's slot is taken until it says that the script has ended
    push(world, project, repository, flow("queue"), "three")
    assert agent.orders() == []
    agent.report(messages.StepFinished(fence=order.fence, index=0, at=2, exit_code=143, offset=9))
    agent.report(
        messages.JobFinished(fence=order.fence, at=3, state="cancelled", code="cancelled", sentence="x", log_bytes=9)
    )
    assert [found.run for found in agent.orders()] == [3]
    with world.read() as conn:
        attempt = jobs.attempt_by_fence(conn, order.fence)
        assert attempt is not None
        assert [(step.state, step.exit_code) for step in steps.of_attempt(conn, attempt.id)] == [(State.FAILED, 143)]


def test_cancelling_the_run_in_front_lets_the_next_one_start(world: World) -> None:
    project, repository = world.project()
    push(world, project, repository, flow("queue"), "one")
    push(world, project, repository, flow("queue"), "two")
    run = world.run(1)
    world.call(lambda tx: commands.cancel_run(tx, world.master, run.id, "bo", world.tick()))
    agent = world.agent()
    assert [order.run for order in agent.orders()] == [2]


def test_p06_reports_of_a_stale_owner_change_nothing_and_it_is_told_to_stop_once(world: World) -> None:
    project, repository = world.project()
    agent = world.agent()
    push(world, project, repository, flow())
    [order] = agent.orders()
    stranger = world.agent("stranger", capabilities=())
    stranger.report(messages.JobStarted(fence=order.fence, at=1))
    stranger.report(messages.StepStarted(fence=order.fence, index=0, name="x", at=1, offset=0))
    stranger.report(messages.JobFinished(fence=order.fence, at=1, state="succeeded"))
    assert world.run().state is State.RUNNING
    [stop] = stranger.orders()
    assert (stop.fence, stop.code) == (order.fence, "stale-fence")
    agent.finish(order)
    agent.report(messages.StepStarted(fence=order.fence, index=5, name="after the end", at=9, offset=0))
    assert [body.code for body in agent.orders()] == ["stale-fence"]
    with world.read() as conn:
        attempt = jobs.attempt_by_fence(conn, order.fence)
        assert attempt is not None
        assert steps.of_attempt(conn, attempt.id) == []


def test_a_report_said_again_is_taken_once(world: World) -> None:
    project, repository = world.project()
    agent = world.agent()
    push(world, project, repository, flow("queue"), "one")
    push(world, project, repository, flow("queue"), "two")
    [order] = agent.orders()
    report = messages.Report(number=1, body=messages.JobFinished(fence=order.fence, at=1, state="succeeded"))
    for _ in range(3):
        agent.again(report)
    assert world.states() == [State.SUCCEEDED, State.RUNNING]
    assert len(agent.orders()) == 1


def test_an_agent_that_refuses_a_job_fails_it_with_its_own_words(world: World) -> None:
    project, repository = world.project()
    agent = world.agent()
    push(world, project, repository, flow())
    [order] = agent.orders()
    agent.report(
        messages.JobRefused(fence=order.fence, at=1, code="no-capability", sentence="this host runs no scripts")
    )
    assert (world.run().state, world.run().reason) == (State.FAILED, "steps: this host runs no scripts")


def test_r74_images_become_releases_only_for_the_projects_own_names(world: World) -> None:
    project, repository = world.project()
    agent = world.agent()
    push(world, project, repository, flow("queue"), "one")
    [order] = agent.orders()
    good = messages.BuiltImage(origin="local", reference="keepwork:1", repository="keepwork", image_id=IMAGE)
    agent.finish(order, images=(good, good))
    push(world, project, repository, flow("queue"), "two")
    [order] = agent.orders()
    bad = messages.BuiltImage(origin="local", reference="other:1", repository="evil/other", image_id=IMAGE)
    agent.finish(order, images=(bad,))
    push(world, project, repository, flow("queue"), "three")
    [order] = agent.orders()
    pushed = messages.BuiltImage(origin="registry", reference="x", repository="keepwork", image_id=IMAGE, digest=DIGEST)
    agent.finish(order, images=(pushed,))
    assert world.states() == [State.SUCCEEDED, State.FAILED, State.FAILED]
    assert "evil/other is not among the images of keepwork" in world.run(2).reason
    assert "may not push" in world.run(3).reason
    with world.read() as conn:
        found = [releases.of_run(conn, run.id) for run in world.runs()]
    assert [[(one.release.origin, one.reference) for one in each] for each in found] == [
        [("local:local", "keepwork:1")],
        [],
        [],
    ]


def test_r54_after_a_restart_waiting_runs_start_and_running_ones_go_on(world: World) -> None:
    project, repository = world.project()
    agent = world.agent()
    push(world, project, repository, flow("queue"), "one")
    push(world, project, repository, flow("queue"), "two")
    [order] = agent.orders()
    world.close()
    world.__init__(world.home)  # type: ignore[misc]  # the same home, a new process's objects
    assert world.states() == [State.RUNNING, State.WAITING]
    agent.connect(running=(order.fence,))
    assert world.states() == [State.RUNNING, State.WAITING]
    agent.finish(order)
    assert [found.run for found in agent.orders()] == [2]


def test_the_event_chain_holds_over_everything_that_happened(world: World) -> None:
    project, repository = world.project()
    agent = world.agent()
    for _ in range(3):
        push(world, project, repository, flow("cancel"))
        for order in agent.orders():
            if isinstance(order, messages.RunJob):
                agent.finish(order)
    with world.read() as conn:
        assert events.broken_at(conn) is None
        told = [found.kind for found in events.since(conn, 0, 1000)]
    assert {"agent-connected", "run-created", "job-assigned", "job-ended", "run-state"} <= set(told)


def test_advancing_any_number_of_times_changes_nothing(world: World) -> None:
    project, repository = world.project()
    world.agent(slots=1)
    for branch in ("one", "two"):
        push(world, project, repository, flow("latest"), branch)

    def snapshot() -> Any:
        with world.read() as conn:
            return [(run, jobs.of_run(conn, run.id), jobs.attempts_of_run(conn, run.id)) for run in world.runs()]

    before = snapshot()
    for run in world.runs():
        world.call(lambda tx, run=run: dispatch.advance(tx, world.master, run.id, world.tick()))
    assert snapshot() == before


def test_script_flow_of_the_world_is_a_legal_flow_file(world: World) -> None:
    project, repository = world.project()
    push(world, project, repository, SCRIPT)
    assert world.run().flow == "dev"


def test_a_job_for_containers_or_another_host_waits_for_an_agent_that_has_them(world: World) -> None:
    project, repository = world.project()
    push(world, project, repository, flow(steps="[{run: make, image: 'node:22'}]"), "one")
    push(world, project, repository, flow(steps="[{run: make, ssh: mac-1}]"), "two")
    agent = world.agent()
    assert world.run(1).reason.startswith("no connected agent gives flows containers")
    assert world.run(2).reason == "no connected agent reaches mac-1; see ssh: in its agent.yml"
    assert agent.orders() == []


def test_r34_an_agent_is_told_where_steps_run(world: World) -> None:
    project, repository = world.project()
    agent = world.agent(step_kinds=("run", messages.CONTAINERS, f"{messages.SSH}mac-1"))
    text = "[{run: make, image: 'node:22'}, {run: make, ssh: mac-1, services: {db: postgres}}]"
    push(world, project, repository, flow("queue", text), "one")
    [order] = agent.orders()
    assert [step.where for step in order.steps] == [
        {"image": {"name": "node:22"}},
        {"ssh": "mac-1", "services": {"db": {"image": "postgres"}}},
    ]
