"""An instance per branch: begun by the first deploy, apart from all others, gone with its branch or after idle days."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from keepflow.core import names
from keepflow.core.events import Parsed
from keepflow.core.flows import Container
from keepflow.core.states import Phase, State
from keepflow.engine import confiding, intake, leaving, preparing, reconcile
from keepflow.store import environments, placements, preparations
from keepflow.store.environments import Environment
from keepflow.store.projects import Project
from keepflow.wire import messages
from tests.engine.test_deploy_runs import BOTH, BUILT, _accept, _finish
from tests.engine.test_dispatch import IMAGE, flow, push
from tests.engine.test_several_hosts import Farm, image
from tests.engine.world import PlayedAgent, World
from tests.tools.repositories import git

TEXT = flow("latest", steps="[{run: make}, {deploy: {environment: dev, per_branch: true}}]", on='{push: "**"}')
IDLE = 3600


@pytest.fixture
def place(world: World) -> tuple[Project, Path]:
    """A project whose every branch reaches dev."""
    project, repository = world.project()
    world.environment(project, "dev", ["**"], idle=IDLE)
    return project, repository


def instances(world: World, project: Project) -> dict[str, Environment]:
    """Return the branches' instances by their ref."""
    with world.read() as conn:
        return {one.ref: one for one in environments.of_project(conn, project.id) if one.base_id is not None}


def signed(order: messages.Deploy) -> dict[str, Any]:
    """Return what an order says."""
    said: dict[str, Any] = json.loads(base64.b64decode(order.envelope["payload"]))
    return said


def deployed(world: World, place: tuple[Project, Path], agent: PlayedAgent, branch: str) -> messages.Deploy:
    """Push a branch and have it served; return the order."""
    push(world, *place, TEXT, branch=branch)
    [job] = agent.orders()
    agent.finish(job, images=(BUILT,))
    [order] = agent.orders()
    _accept(agent, order)
    _finish(agent, order)
    return order


def removals(agent: PlayedAgent) -> list[messages.Deploy]:
    """Return the orders to remove something that an agent gets."""
    return [one for one in agent.orders() if isinstance(one, messages.Deploy) and signed(one)["action"] == "remove"]


def test_r46_every_branch_gets_an_instance_of_its_own(world: World, place: tuple[Project, Path]) -> None:
    agent = world.agent(**BOTH)
    said = [signed(deployed(world, place, agent, branch)) for branch in ("feature/a", "feature-a", "feature/a")]
    assert {one["environment"] for one in said} == {"keepwork/dev"}
    assert {one["service"] for one in said} == {"keepwork-dev"}
    wanted = [names.branch_instance(f"refs/heads/{branch}") for branch in ("feature/a", "feature-a", "feature/a")]
    assert [one["instance"] for one in said] == wanted
    assert {ref: one.name for ref, one in instances(world, place[0]).items()} == {
        "refs/heads/feature/a": f"dev-{wanted[0]}",
        "refs/heads/feature-a": f"dev-{wanted[1]}",
    }
    assert world.states() == [State.SUCCEEDED] * 3


def test_what_serves_is_written_down_for_each_instance_apart(world: World, place: tuple[Project, Path]) -> None:
    agent = world.agent(**BOTH)
    one, other = (signed(deployed(world, place, agent, branch))["instance"] for branch in ("a", "b"))
    for instance in (one, other):
        state = messages.ServiceState(
            service="keepwork-dev", instance=instance, environment="keepwork/dev", identity=IMAGE, note=instance
        )
        with world.read() as conn:
            found = placements.of_service(conn, "local", "keepwork-dev", instance)
        assert found is not None
        world.call(lambda tx, found=found, state=state: placements.observe(
            tx.conn, found.environment_id, found.host, state.model_dump(mode="json")
        ))  # fmt: skip
    seen = {one.instance: (one.hosts[0].observed or {})["note"] for one in instances(world, place[0]).values()}
    assert seen == {one: one, other: other}


def test_secrets_of_the_environment_reach_its_instances(world: World, place: tuple[Project, Path]) -> None:
    agent = world.agent(**BOTH)
    deployed(world, place, agent, "a")
    [own] = instances(world, place[0]).values()
    told = {"identity": IMAGE, "given": []}
    world.call(lambda tx: placements.observe(tx.conn, own.id, "local", told))
    [own] = instances(world, place[0]).values()
    with world.read() as conn:
        base = environments.base_of(conn, own)
    world.call(
        lambda tx: confiding.put(tx, world.master, base, "DATABASE_URL", "postgres://secret", "ann", world.tick())
    )

    with world.read() as conn:
        assert confiding.missing(conn, own, Container(secrets=("DATABASE_URL",))) is None
        lacking = confiding.missing(conn, own, Container(secrets=("OTHER",)))
    assert lacking is not None
    assert "keepflow secret set keepwork/dev OTHER" in lacking


def test_r46_an_instance_goes_with_its_branch_and_no_other_does(world: World, place: tuple[Project, Path]) -> None:
    project, repository = place
    agent = world.agent(**BOTH)
    for branch in ("a", "b"):
        deployed(world, place, agent, branch)
    reconcile.reconcile(world.master, project)  # the first look only takes note
    git(repository, "update-ref", "-d", "refs/heads/a")
    reconcile.reconcile(world.master, project)
    [order] = removals(agent)
    assert signed(order)["instance"] == names.branch_instance("refs/heads/a")
    reconcile.reconcile(world.master, project)
    assert removals(agent) == []
    _removed(world, agent, order)
    assert set(instances(world, project)) == {"refs/heads/b"}


def _removed(world: World, agent: PlayedAgent, order: messages.Deploy, outcome: str = "done") -> None:
    body = messages.DeployFinished(
        fence=order.fence, deployment=order.deployment, at=3, outcome=outcome, code="removed", sentence="", serving=None
    )  # type: ignore[arg-type]  # a word of the protocol
    assert world.call(lambda tx: preparing.report(tx, world.master, agent.id, body, world.tick()))


def test_a_removal_that_failed_is_ordered_again(world: World, place: tuple[Project, Path]) -> None:
    agent = world.agent(**BOTH)
    deployed(world, place, agent, "a")
    world.call(lambda tx: leaving.gone(tx, world.master, place[0], (), world.tick()))
    [order] = removals(agent)
    _removed(world, agent, order, "failed")
    assert set(instances(world, place[0])) == {"refs/heads/a"}
    world.call(lambda tx: leaving.gone(tx, world.master, place[0], (), world.tick()))
    assert len(removals(agent)) == 1


def test_a_branch_that_comes_back_gets_its_instance_anew(world: World, place: tuple[Project, Path]) -> None:
    agent = world.agent(**BOTH)
    deployed(world, place, agent, "a")
    world.call(lambda tx: leaving.gone(tx, world.master, place[0], (), world.tick()))
    [order] = removals(agent)
    _removed(world, agent, order)
    assert instances(world, place[0]) == {}
    deployed(world, place, agent, "a")
    [own] = instances(world, place[0]).values()
    assert own.hosts[0].current_id is not None


def test_an_instance_that_is_being_deployed_to_is_not_removed(world: World, place: tuple[Project, Path]) -> None:
    agent = world.agent(**BOTH)
    push(world, *place, TEXT, branch="a")
    [job] = agent.orders()
    agent.finish(job, images=(BUILT,))
    agent.orders()
    world.call(lambda tx: leaving.gone(tx, world.master, place[0], (), world.tick()))
    assert removals(agent) == []


def test_an_instance_nobody_deploys_to_is_removed_after_its_idle_time(
    world: World, place: tuple[Project, Path]
) -> None:
    agent = world.agent(**BOTH)
    deployed(world, place, agent, "a")
    leaving.sweep(world.master, world.tick((IDLE - 1) * 1_000_000))
    assert removals(agent) == []
    leaving.sweep(world.master, world.tick(2_000_000))
    [order] = removals(agent)
    with world.read() as conn:
        [found] = preparations.live(conn, next(iter(instances(world, place[0]).values())).id, "removal")
    assert (found.id, found.phase) == (order.deployment, Phase.OFFERED)
    _removed(world, agent, order, "failed")
    leaving.sweep(world.master, world.tick(60_000_000))
    assert removals(agent) == [], "not every minute again"
    leaving.sweep(world.master, world.tick(600_000_000))
    assert len(removals(agent)) == 1


def test_what_a_host_refuses_is_the_reason_of_the_run(world: World, place: tuple[Project, Path]) -> None:
    agent = world.agent(**BOTH)
    push(world, *place, TEXT, branch="a")
    [job] = agent.orders()
    agent.finish(job, images=(BUILT,))
    [order] = agent.orders()
    sentence = "keepwork-dev has 20 instances on this host"
    body = messages.DeployAnswer(
        fence=order.fence, deployment=order.deployment, at=1, accepted=False, code="instances-full", sentence=sentence
    )
    agent.report(body)
    assert world.run().state is State.FAILED
    assert sentence in world.run().reason


@pytest.mark.parametrize("name", ["a-name-of-many-letters"])
def test_an_environment_whose_name_leaves_no_room_says_so(world: World, name: str) -> None:
    project, repository = world.project()
    world.environment(project, name, ["**"])
    agent = world.agent(**BOTH)
    push(world, project, repository, TEXT.replace("environment: dev", f"environment: {name}"), branch="a")
    [job] = agent.orders()
    agent.finish(job, images=(BUILT,))
    assert "a name of at most 15 characters" in world.run().reason


def test_a_hook_about_a_deleted_branch_has_the_remote_looked_at(world: World, place: tuple[Project, Path]) -> None:
    heard: list[str] = []
    world.master.wakes.subscribe("projects", lambda: heard.append("projects"))
    said = Parsed(word="deleted", sentence="a was deleted")
    world.call(
        lambda tx: intake.record(tx, world.master, place[0], "d1", "github", "push", {}, b"{}", said, world.tick())
    )
    assert heard == ["projects"]


# --- over several hosts ----------------------------------------------------------------------------------------------

HOSTS = ("web-1", "web-2")


def _branch_on_two_hosts(farm: Farm, world: World) -> None:
    push(world, farm.project, farm.repository, TEXT, branch="main")
    [job] = farm.builder.orders()
    farm.builder.finish(job, images=(image("a"),))
    for host in HOSTS:
        orders = farm.asked()
        assert list(orders) == [host], "only one host is asked at a time, in their order"
        assert signed(orders[host])["instance"] == names.branch_instance("refs/heads/main")
        farm.finish(host, orders[host])
    assert world.run().state is State.SUCCEEDED


def test_r46_a_branch_has_its_instance_on_every_host_of_the_environment(world: World) -> None:
    farm = Farm(world, HOSTS)
    _branch_on_two_hosts(farm, world)
    [own] = instances(world, farm.project).values()
    assert own.agents == HOSTS
    assert {host.host: host.identity for host in own.hosts} == dict.fromkeys(HOSTS, "sha256:" + "a0" * 32)
    assert farm.serving() == dict.fromkeys(HOSTS), "nothing was deployed to the environment itself"


def test_r46_an_instance_goes_from_every_host_and_is_there_until_the_last_one_let_it_go(world: World) -> None:
    farm = Farm(world, HOSTS)
    _branch_on_two_hosts(farm, world)
    world.call(lambda tx: leaving.gone(tx, world.master, farm.project, (), world.tick()))
    orders = {host: removals(farm.hosts[host])[0] for host in HOSTS}
    _removed(world, farm.hosts["web-1"], orders["web-1"])
    assert instances(world, farm.project), "the other host still has it"
    _removed(world, farm.hosts["web-2"], orders["web-2"], "failed")
    assert instances(world, farm.project)
    world.call(lambda tx: leaving.gone(tx, world.master, farm.project, (), world.tick()))
    for host in HOSTS:
        [order] = removals(farm.hosts[host])
        _removed(world, farm.hosts[host], order)
    assert instances(world, farm.project) == {}


def test_a_host_that_fails_stops_the_instance_of_a_branch_on_the_hosts_behind_it(world: World) -> None:
    farm = Farm(world, HOSTS)
    push(world, farm.project, farm.repository, TEXT, branch="main")
    [job] = farm.builder.orders()
    farm.builder.finish(job, images=(image("a"),))
    orders = farm.asked()
    farm.finish("web-1", orders["web-1"], "failed", "it answers 500")
    assert farm.asked() == {}
    assert world.run().state is State.FAILED
