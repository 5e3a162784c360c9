"""Runs that end in a deploy: the script builds, the deployer delivers, and what was sent is never cut short."""

from __future__ import annotations

from pathlib import Path

import pytest

from keepflow.core.flows import JobKind
from keepflow.core.states import Phase, State
from keepflow.engine import commands, deploying, enrol
from keepflow.store import deployments, environments, events, jobs
from keepflow.store.deployments import Deployment
from keepflow.store.projects import Project
from keepflow.wire import messages
from tests.engine.test_dispatch import IMAGE, flow, push
from tests.engine.world import PlayedAgent, World

BOTH = {"capabilities": ("run", "deploy")}
TEXT = flow("latest", steps="[{run: make}, {deploy: dev}]")
BUILT = messages.BuiltImage(origin="local", reference="keepwork:1", repository="keepwork", image_id=IMAGE)


@pytest.fixture
def place(world: World) -> tuple[Project, Path]:
    """A project whose dev branch reaches its dev environment."""
    project, repository = world.project()
    world.environment(project, "dev", ["dev"])
    return project, repository


def _deployment(world: World, number: int = 1) -> Deployment:
    job = next(job for job in world.jobs(number).values() if job.kind == JobKind.DEPLOY)
    with world.read() as conn:
        found = deployments.of_job(conn, job.id)
    assert found is not None
    return found


def _built(agent: PlayedAgent) -> messages.Deploy:
    """Let the script of the newest run build an image, and return the deploy order that follows."""
    [order] = agent.orders()
    agent.finish(order, images=(BUILT,))
    [deploy] = agent.orders()
    assert isinstance(deploy, messages.Deploy)
    return deploy


def _accept(agent: PlayedAgent, deploy: messages.Deploy) -> None:
    agent.report(messages.DeployAnswer(fence=deploy.fence, deployment=deploy.deployment, at=1, accepted=True))


def _finish(agent: PlayedAgent, deploy: messages.Deploy, outcome: str = "done", **more: str) -> None:
    agent.report(
        messages.DeployFinished(
            fence=deploy.fence, deployment=deploy.deployment, at=2, outcome=outcome, serving=IMAGE, **more
        )  # type: ignore[arg-type]  # a word of the protocol
    )


def test_a_run_builds_then_deploys_and_is_what_its_deployment_was(world: World, place: tuple[Project, Path]) -> None:
    agent = world.agent(**BOTH)
    push(world, *place, TEXT)
    deploy = _built(agent)
    assert (world.run().state, world.jobs()["steps"].state) == (State.WAITING, State.SUCCEEDED)
    assert "on its way to agent local" in world.run().reason
    _accept(agent, deploy)
    assert world.run().state is State.RUNNING
    _finish(agent, deploy)
    assert (world.run().state, _deployment(world).phase) == (State.SUCCEEDED, Phase.DONE)


def test_each_phase_of_a_deployment_is_told_once(world: World, place: tuple[Project, Path]) -> None:
    agent = world.agent(**BOTH)
    push(world, *place, TEXT)
    deploy = _built(agent)
    _accept(agent, deploy)
    for phase in ("accepted", "preflight", "pulling"):
        agent.report(messages.DeployPhase(fence=deploy.fence, deployment=deploy.deployment, at=1, phase=phase))
    _finish(agent, deploy)
    told = [entry["phase"] for entry in _deployment(world).phases]
    assert told == ["offered", "accepted", "preflight", "pulling", "done"]


def test_a_failed_deploy_fails_its_run_with_the_deployments_reason(world: World, place: tuple[Project, Path]) -> None:
    agent = world.agent(**BOTH)
    push(world, *place, TEXT)
    deploy = _built(agent)
    _accept(agent, deploy)
    _finish(agent, deploy, "failed", code="not-healthy", sentence="GET / answered 500 for 60 s")
    assert (world.run().state, world.run().reason) == (State.FAILED, "deploy-dev: GET / answered 500 for 60 s")


def test_an_unknown_outcome_waits_and_is_never_turned_green_or_red_by_time(
    world: World, place: tuple[Project, Path]
) -> None:
    agent = world.agent(**BOTH)
    push(world, *place, TEXT)
    deploy = _built(agent)
    _accept(agent, deploy)
    _finish(agent, deploy, "unknown", code="unknown", sentence="the host lost power; the old one serves")
    assert (world.run().state, world.run().reason_code) == (State.WAITING, "outcome-unknown")
    push(world, *place, TEXT)
    assert world.run(2).state is State.WAITING
    _finish(agent, deploy, "done")
    assert world.run(1).state is State.SUCCEEDED
    assert world.run(2).state is State.RUNNING


def test_a_run_that_built_no_image_fails_at_its_deploy_in_words(world: World, place: tuple[Project, Path]) -> None:
    agent = world.agent(**BOTH)
    push(world, *place, TEXT)
    [order] = agent.orders()
    agent.finish(order)
    assert (world.run().state, world.run().reason_code) == (State.FAILED, "no-release")
    assert world.states() == [State.FAILED]


def test_a_failed_script_skips_the_deploy(world: World, place: tuple[Project, Path]) -> None:
    agent = world.agent(**BOTH)
    push(world, *place, TEXT)
    [order] = agent.orders()
    agent.finish(order, "failed", code="exit", sentence="your script failed (exit 2)", exit_code=2)
    job = world.jobs()["deploy-dev"]
    assert (job.state, job.reason) == (State.SKIPPED, "because steps failed")
    assert world.run().state is State.FAILED


@pytest.mark.parametrize("concurrency", ["latest", "cancel"])
def test_a_deploy_that_was_sent_is_never_cut_by_a_newer_push(
    world: World, place: tuple[Project, Path], concurrency: str
) -> None:
    text = TEXT.replace("latest", concurrency)
    agent = world.agent(**BOTH)
    push(world, *place, text)
    deploy = _built(agent)
    push(world, *place, text)
    assert world.states() == [State.WAITING, State.WAITING]
    _accept(agent, deploy)
    push(world, *place, text)
    assert world.states() == [State.RUNNING, State.SUPERSEDED, State.WAITING]
    _finish(agent, deploy)
    assert world.states() == [State.SUCCEEDED, State.SUPERSEDED, State.RUNNING]


def test_a_deploy_that_nobody_was_sent_gives_way_to_a_newer_push(world: World, place: tuple[Project, Path]) -> None:
    agent = world.agent()  # builds, but cannot deploy
    push(world, *place, TEXT)
    [order] = agent.orders()
    agent.finish(order, images=(BUILT,))
    assert "does not have the capability deploy" in world.run().reason
    push(world, *place, TEXT)
    assert world.states() == [State.SUPERSEDED, State.RUNNING]
    assert _deployment(world).phase is Phase.FAILED
    agent.connect(**BOTH)
    assert [body.type for body in agent.orders()] == ["run-job"], "the order that was taken back is not sent"


def test_cancelling_a_sent_deploy_is_too_late_and_says_so(world: World, place: tuple[Project, Path]) -> None:
    agent = world.agent(**BOTH)
    push(world, *place, TEXT)
    deploy = _built(agent)
    run = world.run()
    answer = world.call(lambda tx: commands.cancel_run(tx, world.master, run.id, "bo", world.tick()))
    assert answer.word == "too-late"
    assert world.run().state is State.WAITING
    _accept(agent, deploy)
    _finish(agent, deploy)
    assert (world.run().state, _deployment(world).phase) == (State.SUCCEEDED, Phase.DONE)


def test_f03_an_agent_that_vanishes_in_mid_deploy_leaves_the_deployment_alone(
    world: World, place: tuple[Project, Path]
) -> None:
    from keepflow.engine.schedule import LOST_AFTER, SILENT_AFTER

    agent = world.agent(**BOTH)
    push(world, *place, TEXT)
    deploy = _built(agent)
    _accept(agent, deploy)
    agent.leave()
    world.tick(3600 * 1_000_000)
    world.call(lambda tx: enrol.silent(tx, world.master, world.now, SILENT_AFTER, LOST_AFTER))
    agent.connect(running=(), **BOTH)
    assert world.run().state is State.RUNNING
    with world.read() as conn:
        assert [held.fence for held in jobs.holdings(conn)] == [deploy.fence]
    _finish(agent, deploy)
    assert world.run().state is State.SUCCEEDED


# --- faults between master and agent ----------------------------------------------------------------------------------


def test_deploy_f01_an_order_that_was_not_fetched_stays_and_dies_by_its_date(
    world: World, place: tuple[Project, Path]
) -> None:
    agent = world.agent(**BOTH)
    push(world, *place, TEXT)
    [order] = agent.orders()
    agent.finish(order, images=(BUILT,))
    first = _deployment(world)
    assert first.phase is Phase.OFFERED
    agent.leave()
    world.call(enrol.all_disconnected)  # as a master does that has just started
    world.tick(deploying.ORDER_LIFE)
    agent.connect(**BOTH)
    [deploy] = agent.orders()
    assert deploy.deployment == first.id
    assert deploy.fence > (first.fence or 0), "the order that nobody took is void; a fresh one has a number of its own"
    _accept(agent, deploy)
    _finish(agent, deploy)
    assert world.run().state is State.SUCCEEDED


def test_deploy_f02_what_the_agent_did_without_its_master_is_written_down_when_it_is_back(
    world: World, place: tuple[Project, Path]
) -> None:
    agent = world.agent(**BOTH)
    push(world, *place, TEXT)
    deploy = _built(agent)
    agent.leave()
    world.call(enrol.all_disconnected)
    world.tick(3600 * 1_000_000)
    agent.connect(running=(deploy.fence,), **BOTH)
    _accept(agent, deploy)
    for at, phase in enumerate(("preflight", "pulling", "starting"), 5):
        agent.report(messages.DeployPhase(fence=deploy.fence, deployment=deploy.deployment, at=at, phase=phase))
    _finish(agent, deploy)
    assert (world.run().state, _deployment(world).phase) == (State.SUCCEEDED, Phase.DONE)
    told = [entry["phase"] for entry in _deployment(world).phases]
    assert told == ["offered", "accepted", "preflight", "pulling", "starting", "done"]


def test_deploy_f03_an_answer_that_comes_twice_counts_once(world: World, place: tuple[Project, Path]) -> None:
    agent = world.agent(**BOTH)
    push(world, *place, TEXT)
    deploy = _built(agent)
    _accept(agent, deploy)
    _accept(agent, deploy)
    _finish(agent, deploy)
    _accept(agent, deploy)
    _finish(agent, deploy)
    assert [entry["phase"] for entry in _deployment(world).phases] == ["offered", "accepted", "done"]
    assert agent.orders() == []


@pytest.mark.parametrize("when", ["before the order", "after the order", "after acceptance", "after the end"])
def test_deploy_f04_a_cancel_says_what_really_became_of_it(
    world: World, place: tuple[Project, Path], when: str
) -> None:
    agent = world.agent(**(BOTH if when != "before the order" else {}))
    push(world, *place, TEXT)
    [order] = agent.orders()
    agent.finish(order, images=(BUILT,))
    if when != "before the order":
        [deploy] = agent.orders()
        if when != "after the order":
            _accept(agent, deploy)
        if when == "after the end":
            _finish(agent, deploy)
    run = world.run()
    answer = world.call(lambda tx: commands.cancel_run(tx, world.master, run.id, "bo", world.tick()))
    expected = {"before the order": "cancelled", "after the end": "ended"}.get(when, "too-late")
    assert answer.word == expected
    ended = {"cancelled": State.CANCELLED, "ended": State.SUCCEEDED}
    assert world.run().state in (ended.get(expected), State.WAITING, State.RUNNING)
    if expected == "too-late":
        assert "Roll back?" in answer.sentence
        if when == "after the order":
            _accept(agent, deploy)
        _finish(agent, deploy)
        assert (world.run().state, _deployment(world).phase) == (State.SUCCEEDED, Phase.DONE)


# --- a master that was put back to an older state ---------------------------------------------------------------------


def test_a_master_behind_its_agents_gives_out_no_number_they_have_seen(
    world: World, place: tuple[Project, Path]
) -> None:
    agent = world.agent(**BOTH)
    agent.leave()
    agent.connect(highest_fence=5000, **BOTH)
    push(world, *place, TEXT)
    [order] = agent.orders()
    assert order.fence == 5001
    agent.leave()
    agent.connect(highest_fence=7, **BOTH)
    push(world, *place, TEXT, "other")
    assert [order.fence for order in agent.orders()] == [5002], "an agent that is behind changes nothing"


def test_an_agent_that_claims_to_be_ages_ahead_is_not_believed(world: World, place: tuple[Project, Path]) -> None:
    agent = world.agent(**BOTH)
    agent.leave()
    agent.connect(highest_fence=2**62, **BOTH)
    push(world, *place, TEXT)
    [order] = agent.orders()
    assert order.fence < 1000
    with world.read() as conn:
        told = [event.data for event in events.since(conn, 0, 1000) if event.kind == "fence-behind"]
    assert [(one["theirs"], one["believed"]) for one in told] == [(2**62, False)]


def test_what_a_forgetful_master_was_told_before_is_asked_for_again(world: World, place: tuple[Project, Path]) -> None:
    agent = world.agent(**BOTH)
    push(world, *place, TEXT)
    deploy = _built(agent)
    _accept(agent, deploy)
    agent.leave()
    agent.connect(running=(), **BOTH)  # its end was told, and this master does not know of it
    [again] = agent.orders()
    assert again == deploy
    _accept(agent, again)
    _finish(agent, again)
    assert world.run().state is State.SUCCEEDED


def test_what_an_agent_still_holds_is_not_asked_for_again(world: World, place: tuple[Project, Path]) -> None:
    agent = world.agent(**BOTH)
    push(world, *place, TEXT)
    deploy = _built(agent)
    _accept(agent, deploy)
    agent.leave()
    agent.connect(running=(deploy.fence,), **BOTH)
    assert agent.orders() == []


def test_an_agent_that_lost_its_memory_leaves_the_outcome_unknown(world: World, place: tuple[Project, Path]) -> None:
    agent = world.agent(**BOTH)
    push(world, *place, TEXT)
    deploy = _built(agent)
    _accept(agent, deploy)
    agent.leave()
    agent.connect(running=(), **BOTH)
    [again] = agent.orders()
    refused = messages.DeployAnswer(
        fence=again.fence, deployment=again.deployment, at=9, accepted=False, code="expired", sentence="void since 9 s"
    )
    agent.report(refused)
    assert (world.run().state, world.run().reason_code) == (State.WAITING, "outcome-unknown")
    assert "knows nothing of it any more" in _deployment(world).reason


def test_a_refused_order_says_nothing_of_what_serves(world: World, place: tuple[Project, Path]) -> None:
    agent = world.agent(**BOTH)
    push(world, *place, TEXT)
    deploy = _built(agent)
    _accept(agent, deploy)
    _finish(agent, deploy)
    state = messages.ServiceState(service="keepwork-dev", instance="main", environment="x", identity="sha256:by-hand")
    beat = messages.Heartbeat(at=1, services=(state,))
    world.call(lambda tx: enrol.heartbeat(tx, world.master, agent.id, beat, world.tick(10 * 1_000_000)))
    push(world, *place, TEXT)
    again = _built(agent)
    code, why = "expect-current", "the order expects another"
    agent.report(
        messages.DeployAnswer(
            fence=again.fence, deployment=again.deployment, at=9, accepted=False, code=code, sentence=why
        )
    )
    assert world.run(2).reason_code == code
    with world.read() as conn:
        environment = environments.by_id(conn, _deployment(world).environment_id)
    assert environment.hosts[0].identity == "sha256:by-hand", "as it was last seen"
