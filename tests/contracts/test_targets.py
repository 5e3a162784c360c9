"""Every target keeps the promises of `ports.Target`; a new one is tested here before its author writes a test."""

from __future__ import annotations

import inspect
import itertools
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from keepflow import ports
from keepflow.core import names
from keepflow.core.flows import Container, Volume
from keepflow.errors import DeployFailed
from keepflow.ports import ContainerFacts, SlotSpec, Target
from tests.agent.fakes import FakeTarget
from tests.real.engines import Engine
from tests.real.parts import missing
from tests.real.waiting import wait_until

_SERVICE = f"ct{os.getpid()}"
_MARK = {"keepflow.test": str(os.getpid())}
_blocks = itertools.count()


def _docker(request: pytest.FixtureRequest) -> tuple[Target, str]:
    from keepflow.targets.docker import Docker

    engine: Engine = request.getfixturevalue("engine")
    base_images = request.getfixturevalue("base_images")
    target = Docker(engine.host)
    found = target.image(base_images["busybox"])
    if found is None:
        missing("the base image busybox")

    def clean() -> None:
        engine.remove_labelled(f"keepflow.test={os.getpid()}")
        engine.remove_labelled(f"{names.LABEL_SERVICE}={_SERVICE}")
        target.close()

    request.addfinalizer(clean)
    return target, found.image_id


def _fake(request: pytest.FixtureRequest) -> tuple[Target, str]:
    target = FakeTarget()
    request.addfinalizer(target.close)
    return target, target.add_image("sha256:" + "1" * 64)


_MAKERS: dict[str, Callable[[pytest.FixtureRequest], tuple[Target, str]]] = {"docker": _docker}


def test_every_target_is_held_to_its_contract() -> None:
    assert set(ports.discover("keepflow.targets")) == set(_MAKERS)


@pytest.mark.parametrize("name", sorted(ports.discover("keepflow.targets")))
def test_a_target_is_one_file_with_one_class_that_fits(name: str) -> None:
    module = ports.discover("keepflow.targets")[name]
    classes = [one for one in vars(module).values() if inspect.isclass(one) and one.__module__ == module.__name__]
    public = [one for one in classes if not one.__name__.startswith("_")]
    assert len(public) == 1
    for method, wanted in vars(Target).items():
        if callable(wanted) and not method.startswith("_"):
            assert list(inspect.signature(getattr(public[0], method)).parameters) == list(
                inspect.signature(wanted).parameters
            )


@pytest.fixture(params=[pytest.param("docker", marks=pytest.mark.real), "fake"])
def made(request: pytest.FixtureRequest) -> Iterator[tuple[Target, SlotSpec]]:
    """A target and the description of one container that sleeps."""
    target, image_id = {**_MAKERS, "fake": _fake}[request.param](request)
    block = next(_blocks)
    subnet = (
        f"127.79.{block}.0/28" if request.param == "fake" else f"10.213.{200 + block % 50}.{os.getpid() % 16 * 16}/28"
    )
    address = subnet.rsplit(".", 1)[0] + f".{int(subnet.split('/')[0].rsplit('.', 1)[1]) + 2}"
    labels = {**_MARK, names.LABEL_SERVICE: _SERVICE, names.LABEL_INSTANCE: f"i{block}"}
    spec = SlotSpec(
        service=_SERVICE,
        instance=f"i{block}",
        slot="blue",
        address=address,
        subnet=subnet,
        image_id=image_id,
        container=Container(port=8099, args=("sh", "-c", "echo hello; echo world >&2; exec sleep 600")),
        env={"A": "b c", "PATH": "/bin:/usr/bin"},
        labels={**labels, names.LABEL_DEPLOYMENT: "d1", names.LABEL_SLOT: "blue", names.LABEL_IDENTITY: image_id},
    )
    target.network(names.network(spec.service, spec.instance), subnet, labels)
    yield target, spec
    for facts in target.mine(_MARK):
        target.remove(facts.id)


def facts_of(target: Target, container_id: str) -> ContainerFacts:
    found = target.inspect(container_id)
    assert found is not None
    return found


def name_of(spec: SlotSpec) -> str:
    return names.container(spec.service, spec.instance, spec.slot)


def test_an_engine_that_answers_pings(made: tuple[Target, SlotSpec]) -> None:
    made[0].ping()


def test_a_created_container_is_found_by_exact_name_only_and_does_not_run(made: tuple[Target, SlotSpec]) -> None:
    target, spec = made
    created = target.create(spec)
    facts = target.inspect(name_of(spec))
    assert facts is not None
    assert (facts.id, facts.name, facts.running, facts.image_id) == (created, name_of(spec), False, spec.image_id)
    assert facts.labels.items() >= dict(spec.labels).items()
    assert facts.address == spec.address
    assert target.inspect(created) == facts
    assert target.inspect(name_of(spec)[:-1]) is None
    assert target.inspect(created[:-1]) is None


def test_start_stop_start_remove(made: tuple[Target, SlotSpec]) -> None:
    target, spec = made
    created = target.create(spec)
    target.start(created)
    facts = target.inspect(created)
    assert facts is not None
    assert (facts.running, facts.restarts, facts.exit_code, facts.address) == (True, 0, None, spec.address)
    target.persist(created)
    target.stop(created, 5)
    facts = target.inspect(created)
    assert facts is not None
    assert not facts.running
    assert facts.exit_code is not None
    target.start(created)
    again = target.inspect(created)
    assert again is not None
    assert again.running
    assert again.started_at != facts.started_at or not facts.started_at
    target.remove(created)
    target.remove(created)
    assert target.inspect(created) is None


def test_a_command_of_its_own_replaces_what_the_image_and_the_args_say_and_ends(made: tuple[Target, SlotSpec]) -> None:
    target, spec = made
    once = replace(spec, slot=names.RELEASE, command=("sh", "-c", 'echo "A is $A"; exit 0'))
    created = target.create(once)
    target.start(created)
    wait_until(lambda: not facts_of(target, created).running, 20, "the end of the command")
    ended = facts_of(target, created)
    assert (ended.name, ended.exit_code) == (name_of(once), 0)
    assert "hello" not in target.tail(created, 5)


def test_what_is_gone_can_be_stopped_and_asked_for_its_words(made: tuple[Target, SlotSpec]) -> None:
    target, _ = made
    target.stop("0" * 64, 1)
    target.remove("0" * 64)
    assert target.inspect("0" * 64) is None
    assert target.inspect("no-such-name") is None


def test_f06_creating_twice_for_the_same_deployment_adopts(made: tuple[Target, SlotSpec]) -> None:
    target, spec = made
    assert target.create(spec) == target.create(spec)
    assert len(target.mine(spec.labels)) == 1


def test_containers_are_listed_by_all_their_labels(made: tuple[Target, SlotSpec]) -> None:
    target, spec = made
    created = target.create(spec)
    assert [one.id for one in target.mine({**_MARK, names.LABEL_DEPLOYMENT: "d1"})] == [created]
    assert target.mine({**_MARK, names.LABEL_DEPLOYMENT: "d"}) == []


def test_the_words_of_a_container_are_its_last_ones(made: tuple[Target, SlotSpec]) -> None:
    target, spec = made
    created = target.create(spec)
    target.start(created)
    wait_until(lambda: target.tail(created, 10), 5, "its words")
    assert "\n" not in target.tail(created, 1).strip()


def test_an_image_is_known_by_id_and_tag_and_unknown_is_none(made: tuple[Target, SlotSpec]) -> None:
    target, spec = made
    facts = target.image(spec.image_id)
    assert facts is not None
    assert facts.image_id == spec.image_id
    assert target.image("sha256:" + "0" * 64) is None
    tag = names.keep_tag(spec.service, spec.instance, spec.image_id)
    target.keep(spec.image_id, tag)
    kept = target.image(tag)
    assert kept is not None
    assert kept.image_id == spec.image_id
    assert target.kept(tag.rpartition(":")[0]) == [(tag, spec.image_id)]
    assert target.kept(tag.rpartition(":")[0][:-1]) == []
    target.drop(tag)
    target.drop(tag)
    assert target.kept(tag.rpartition(":")[0]) == []
    assert target.image(spec.image_id) is not None, "it has other names"


def test_a_network_of_that_name_with_another_subnet_is_refused(made: tuple[Target, SlotSpec]) -> None:
    target, spec = made
    name = names.network(spec.service, spec.instance)
    target.network(name, spec.subnet, _MARK)
    other = re.sub(r"/28$", "/29", spec.subnet)
    with pytest.raises(DeployFailed) as refused:
        target.network(name, other, _MARK)
    assert refused.value.code == "network-overlap"


def test_a_pull_of_what_no_registry_has_is_an_error(made: tuple[Target, SlotSpec]) -> None:
    target, _ = made
    with pytest.raises(DeployFailed) as failed:
        target.pull("127.0.0.1:1/nothing", "sha256:" + "0" * 64, None, lambda _: None)
    assert failed.value.code in ("pull-failed", "image-missing")


def test_volumes_are_taken_as_named_and_survive_the_container(made: tuple[Target, SlotSpec]) -> None:
    target, spec = made
    with_volume = replace(spec, container=replace(spec.container, volumes=(Volume("data", "/data"),)))
    target.remove(target.create(with_volume))
    assert target.inspect(target.create(with_volume)) is not None
