"""Environments on several hosts: one run, host by host in batches, stopped at the first that fails."""

from __future__ import annotations

from keepflow.core.states import Phase, State
from keepflow.engine import commands
from keepflow.store import deployments, environments, events
from keepflow.store.deployments import Deployment
from keepflow.store.environments import Environment
from keepflow.wire import messages
from tests.engine.test_dispatch import flow, push
from tests.engine.world import World

HOSTS = ("web-1", "web-2", "web-3")
TEXT = flow("latest", steps="[{run: make}, {deploy: dev}]")


def image(letter: str) -> messages.BuiltImage:
    """Return a pushed image; the letter makes its digest."""
    return messages.BuiltImage(
        origin="registry",
        reference="registry.example.org:5000/keepwork:1",
        repository="keepwork",
        image_id="sha256:" + letter * 64,
        digest="sha256:" + (letter + "0") * 32,
    )


class Farm:
    """One environment on several hosts, an agent that builds, and one agent per host."""

    def __init__(self, world: World, hosts: tuple[str, ...] = HOSTS, **settings: object) -> None:
        self.world = world
        self.project, self.repository = world.project()
        world.environment(self.project, "dev", ["dev", "main"], hosts, **settings)
        self.builder = world.agent("builder")
        self.hosts = {name: world.agent(name, capabilities=("deploy",)) for name in hosts}

    def push(self, letter: str = "a", branch: str = "dev") -> int:
        """Push, let the script build an image, and return the number of the run that now deploys it."""
        push(self.world, self.project, self.repository, TEXT, branch)
        [order] = self.builder.orders()
        self.builder.finish(order, images=(image(letter),))
        return self.world.runs()[-1].number

    def asked(self) -> dict[str, messages.Deploy]:
        """Take the orders every host has now, and accept them."""
        found = {name: agent.orders() for name, agent in self.hosts.items()}
        for name, orders in found.items():
            for order in orders:
                answer = messages.DeployAnswer(fence=order.fence, deployment=order.deployment, at=1, accepted=True)
                self.hosts[name].report(answer)
        return {name: orders[0] for name, orders in found.items() if orders}

    def finish(self, host: str, order: messages.Deploy, outcome: str = "done", sentence: str = "") -> None:
        """End a deployment; what serves then is what its outcome says."""
        stored = self.deployment(order.deployment)
        serving = stored.identity if outcome == "done" else stored.identity_before
        code = "" if outcome == "done" else "not-healthy"
        told = messages.DeployFinished(
            fence=order.fence,
            deployment=order.deployment,
            at=2,
            outcome=outcome,  # type: ignore[arg-type]  # a word of the protocol
            code=code,
            sentence=sentence,
            serving=serving,
        )
        self.hosts[host].report(told)

    def serve(self, letter: str = "a") -> int:
        """Deploy an image to every host, well."""
        number = self.push(letter)
        while orders := self.asked():
            for host, order in orders.items():
                self.finish(host, order)
        assert self.world.run(number).state is State.SUCCEEDED
        return number

    def deployment(self, deployment_id: str) -> Deployment:
        """Return a deployment."""
        with self.world.read() as conn:
            found = deployments.by_id(conn, deployment_id)
        assert found is not None
        return found

    def environment(self) -> Environment:
        """Return the environment."""
        with self.world.read() as conn:
            found = environments.by_name(conn, self.project.id, "dev")
        assert found is not None
        return found

    def serving(self) -> dict[str, str | None]:
        """Return per host the letter of the image that serves."""
        return {host.host: host.identity[7] if host.identity else None for host in self.environment().hosts}

    def phases(self, number: int) -> dict[str, tuple[Phase, str]]:
        """Return per host the phase of a run's deployment and why."""
        with self.world.read() as conn:
            found = deployments.of_run(conn, self.world.run(number).id)
        return {one.host: (one.phase, one.reason_code) for one in found}


def test_hosts_are_switched_one_after_the_other_and_the_run_succeeds_with_the_last(world: World) -> None:
    farm = Farm(world)
    number = farm.push()
    for host in HOSTS:
        assert world.run(number).state is not State.SUCCEEDED
        orders = farm.asked()
        assert list(orders) == [host], "only one host is asked at a time, in their order"
        farm.finish(host, orders[host])
    assert world.run(number).state is State.SUCCEEDED
    assert farm.serving() == dict.fromkeys(HOSTS, "a")
    current = {host.current_id for host in farm.environment().hosts}
    assert len(current) == 3
    assert None not in current


def test_a_batch_is_asked_at_once_and_the_next_one_waits_for_all_of_it(world: World) -> None:
    farm = Farm(world, max_unavailable=2)
    number = farm.push()
    orders = farm.asked()
    assert list(orders) == ["web-1", "web-2"]
    farm.finish("web-1", orders["web-1"])
    assert farm.asked() == {}
    farm.finish("web-2", orders["web-2"])
    orders = farm.asked()
    assert list(orders) == ["web-3"]
    farm.finish("web-3", orders["web-3"])
    assert world.run(number).state is State.SUCCEEDED


def test_the_whole_environment_is_held_until_the_last_host(world: World) -> None:
    farm = Farm(world)
    farm.push("a")
    farm.finish("web-1", farm.asked()["web-1"])
    later = farm.push("b", "main")
    assert list(farm.asked()) == ["web-2"], "the first run goes on; the second has no order"
    assert (world.run(later).state, world.run(later).reason_code) == (State.WAITING, "deploy-under-way")


def test_the_first_failure_stops_the_hosts_behind_it_and_says_so(world: World) -> None:
    farm = Farm(world, on_failure="stop")
    farm.serve("a")
    number = farm.push("b")
    farm.finish("web-1", farm.asked()["web-1"])
    farm.finish("web-2", farm.asked()["web-2"], "failed", "GET / answered 500 for 60 s")
    assert farm.asked() == {}
    assert farm.phases(number) == {
        "web-1": (Phase.DONE, ""),
        "web-2": (Phase.FAILED, "not-healthy"),
        "web-3": (Phase.FAILED, "stopped-after"),
    }
    skipped = world.jobs(number)["deploy-dev-web-3"]
    assert (skipped.state, skipped.reason_code) == (State.SKIPPED, "stopped-after")
    assert skipped.reason == f"stopped after keepwork#{number} failed on web-2; not touched"
    assert (world.run(number).state, world.run(number).reason_code) == (State.FAILED, "not-healthy")
    assert farm.serving() == {"web-1": "b", "web-2": "a", "web-3": "a"}


def test_an_unknown_outcome_keeps_the_hosts_behind_it_waiting(world: World) -> None:
    farm = Farm(world)
    number = farm.push()
    order = farm.asked()["web-1"]
    farm.finish("web-1", order, "unknown", "the host lost power")
    assert farm.asked() == {}
    assert (world.run(number).state, world.run(number).reason_code) == (State.WAITING, "outcome-unknown")
    farm.finish("web-1", order)
    assert list(farm.asked()) == ["web-2"]


def test_a_release_that_one_host_built_for_itself_goes_to_no_other(world: World) -> None:
    farm = Farm(world, hosts=("web-1", "web-2"))
    world.environment(farm.project, "dev", ["dev"], ("builder", "web-2"))
    push(world, farm.project, farm.repository, TEXT)
    [order] = farm.builder.orders()
    local = messages.BuiltImage(origin="local", reference="k:1", repository="keepwork", image_id="sha256:" + "a" * 64)
    farm.builder.finish(order, images=(local,))
    assert (world.run().state, world.run().reason_code) == (State.FAILED, "no-release")
    assert "builder, web-2" in world.run().reason


def test_a_host_that_left_the_environment_under_way_fails_the_deploy_in_words(world: World) -> None:
    farm = Farm(world)
    push(world, farm.project, farm.repository, TEXT)
    world.environment(farm.project, "dev", ["dev"], ("web-1", "web-2"))
    [order] = farm.builder.orders()
    farm.builder.finish(order, images=(image("a"),))
    assert (world.run().state, world.run().reason_code) == (State.FAILED, "no-host")
    assert "web-3" in world.run().reason


def test_a_host_that_comes_back_remembers_what_it_was_made_to_serve(world: World) -> None:
    farm = Farm(world)
    farm.serve("a")
    before = farm.environment().hosts
    world.environment(farm.project, "dev", ["dev"], ("web-3",))
    assert farm.environment().agents == ("web-3",)
    world.environment(farm.project, "dev", ["dev"], HOSTS)
    assert farm.environment().hosts == before


def _fail_second(farm: Farm, letter: str = "b") -> int:
    """Deploy to two hosts, the first well, the second badly, and return the run's number."""
    number = farm.push(letter)
    farm.finish("web-1", farm.asked()["web-1"])
    farm.finish("web-2", farm.asked()["web-2"], "reverted", "5xx in the watch window")
    return number


def test_hosts_switched_before_the_failure_go_back_to_what_they_served(world: World) -> None:
    farm = Farm(world)
    farm.serve("a")
    failed = _fail_second(farm)
    assert world.run(failed).state is State.FAILED
    back = world.runs()[-1]
    assert (back.number, back.flow) == (failed + 1, "rollback")
    assert back.why == f"keepwork#{failed} failed on web-2; web-1 goes back to what served before"
    orders = farm.asked()
    assert list(orders) == ["web-1"]
    stored = farm.deployment(orders["web-1"].deployment)
    assert (stored.kind, stored.requested_by, stored.identity) == ("rollback", "keepflow", image("a").digest)
    farm.finish("web-1", orders["web-1"])
    assert world.run(back.number).state is State.SUCCEEDED
    assert farm.serving() == dict.fromkeys(HOSTS, "a")
    assert world.run(failed).state is State.FAILED, "what failed stays failed"


def test_a_host_that_goes_back_is_described_as_it_was(world: World) -> None:
    farm = Farm(world)
    farm.serve("a")
    world.environment(farm.project, "dev", ["dev", "main"], HOSTS, overrides={"env": {"NEW": "1"}})
    _fail_second(farm)
    order = farm.asked()["web-1"]
    assert farm.deployment(order.deployment).description["env"] == {}


def test_going_back_comes_before_a_deploy_that_waits(world: World) -> None:
    farm = Farm(world, hosts=("web-1", "web-2"))
    farm.serve("a")
    number = farm.push("b")
    farm.finish("web-1", farm.asked()["web-1"])
    second = farm.asked()["web-2"]
    later = farm.push("c", "main")
    farm.finish("web-2", second, "failed", "did not start")
    orders = farm.asked()
    assert {farm.deployment(order.deployment).kind for order in orders.values()} == {"rollback"}
    farm.finish("web-1", orders["web-1"])
    assert world.run(number).state is State.FAILED
    while orders := farm.asked():
        for host, order in orders.items():
            farm.finish(host, order)
    assert world.run(later).state is State.SUCCEEDED
    assert farm.serving() == {"web-1": "c", "web-2": "c"}


def test_a_rollback_that_fails_is_not_rolled_back_and_the_others_still_go_back(world: World) -> None:
    farm = Farm(world)
    farm.serve("a")
    farm.push("b")
    farm.finish("web-1", farm.asked()["web-1"])
    farm.finish("web-2", farm.asked()["web-2"])
    farm.finish("web-3", farm.asked()["web-3"], "failed", "did not start")
    farm.finish("web-1", farm.asked()["web-1"], "failed", "the old one does not start either")
    farm.finish("web-2", farm.asked()["web-2"])
    assert farm.asked() == {}
    assert len(world.runs()) == 3, "nothing was started after the rollback"
    assert (world.runs()[-1].state, farm.serving()) == (State.FAILED, {"web-1": "b", "web-2": "a", "web-3": "a"})


def test_a_batch_is_put_back_when_all_of_it_has_ended(world: World) -> None:
    farm = Farm(world, max_unavailable=2)
    farm.serve("a")
    farm.push("b")
    orders = farm.asked()
    farm.finish("web-2", orders["web-2"], "failed", "did not start")
    assert farm.asked() == {}
    farm.finish("web-1", orders["web-1"])
    orders = farm.asked()
    assert {host: farm.deployment(order.deployment).kind for host, order in orders.items()} == {"web-1": "rollback"}


def test_a_host_without_its_order_is_not_begun_after_a_failure(world: World) -> None:
    farm = Farm(world, max_unavailable=2)
    farm.serve("a")
    farm.hosts["web-2"].leave()
    number = farm.push("b")
    farm.finish("web-1", farm.asked()["web-1"], "failed", "did not start")
    farm.hosts["web-2"].connect(capabilities=("deploy",))
    assert farm.asked() == {}
    assert farm.phases(number)["web-2"] == (Phase.FAILED, "stopped-after")
    assert world.run(number).state is State.FAILED


def test_a_first_deploy_that_fails_leaves_what_cannot_be_put_back_and_says_so(world: World) -> None:
    farm = Farm(world)
    _fail_second(farm, "a")
    assert farm.asked() == {}
    assert len(world.runs()) == 1
    with world.read() as conn:
        told = [event.data["sentence"] for event in events.since(conn, 0, 1000) if event.kind == "hosts-kept"]
    assert told == ["keepwork#1 failed on web-2; web-1 served nothing before and cannot be put back"]


def test_a_digest_that_stopped_half_way_never_counts_as_deployed(world: World) -> None:
    farm = Farm(world)
    farm.serve("a")
    _fail_second(farm)
    place = farm.environment().id
    with world.read() as conn:
        assert deployments.newest_done(conn, place, str(image("a").digest))
        assert not deployments.newest_done(conn, place, str(image("b").digest))
        assert {found.identity for found in deployments.done(conn, place, 10)} == {image("a").digest}


def test_an_end_that_is_told_twice_puts_hosts_back_once(world: World) -> None:
    farm = Farm(world)
    farm.serve("a")
    farm.push("b")
    farm.finish("web-1", farm.asked()["web-1"])
    order = farm.asked()["web-2"]
    farm.finish("web-2", order, "failed", "did not start")
    farm.finish("web-2", order, "failed", "did not start")
    assert [run.flow for run in world.runs()] == ["dev", "dev", "rollback"]


def test_a_cancelled_run_leaves_the_hosts_it_has_switched(world: World) -> None:
    farm = Farm(world)
    farm.serve("a")
    number = farm.push("b")
    order = farm.asked()["web-1"]
    run = world.run(number)
    answer = world.call(lambda tx: commands.cancel_run(tx, world.master, run.id, "bo", world.tick()))
    assert answer.word == "too-late"
    farm.finish("web-1", order)
    assert farm.asked() == {}
    assert farm.serving() == {"web-1": "b", "web-2": "a", "web-3": "a"}
    assert world.run(number).state is State.CANCELLED
