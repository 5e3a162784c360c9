"""Secrets of environments on the master: sealed at rest, sealed to one agent, in the clear nowhere."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from keepflow import errors
from keepflow.agent.deployment import Deployment
from keepflow.agent.held_secrets import HeldSecrets
from keepflow.core.states import State
from keepflow.engine import confiding, enrol, secret_values
from keepflow.store import environments, events, placements, secrets
from keepflow.store.environments import Environment
from keepflow.store.projects import Project
from keepflow.wire import messages
from keepflow.wire.orders import DeployOrder
from tests.engine.test_deploy_runs import BUILT
from tests.engine.test_dispatch import flow, push
from tests.engine.world import PlayedAgent, World

CANARY = "c4nary-hunter22\nsecond line"
TEXT = flow(steps="[{run: make}, {deploy: dev}]").replace("flows:", "container: {secrets: [PASSWORD]}\nflows:")


@pytest.fixture
def place(world: World) -> tuple[Project, Path]:
    project, repository = world.project()
    world.environment(project, "dev", ["dev"])
    return project, repository


def _dev(world: World, project: Project) -> Environment:
    with world.read() as conn:
        found = environments.by_name(conn, project.id, "dev")
    assert found is not None
    return found


@pytest.fixture
def put(world: World, place: tuple[Project, Path]) -> Callable[..., Any]:
    def call(name: str = "PASSWORD", value: str = CANARY) -> Any:
        dev = _dev(world, place[0])
        return world.call(lambda tx: confiding.put(tx, world.master, dev, name, value, "bo", world.tick()))

    return call


def _agent(world: World) -> PlayedAgent:
    agent = world.agent(capabilities=("run", "deploy"))
    agent.connect(capabilities=("run", "deploy"), sealing_key=base64.b64encode(agent.key.opening.public).decode())
    return agent


def _order(message: messages.Deploy) -> DeployOrder:
    return DeployOrder.model_validate_json(base64.b64decode(message.envelope["payload"]))


def test_a_value_goes_from_the_vault_to_the_one_agent_and_lies_open_nowhere(
    world: World, place: tuple[Project, Path], put: Callable[..., Any], tmp_path: Path
) -> None:
    put(value="older")
    put()
    agent = _agent(world)
    push(world, *place, TEXT)
    [job] = agent.orders()
    agent.finish(job, images=(BUILT,))
    [message] = agent.orders()
    order = _order(message)
    assert [(one.name, one.version) for one in order.secrets] == [("PASSWORD", 2)]
    held = HeldSecrets(tmp_path / "host", agent.key.opening)
    deployment = Deployment.of(order)
    held.check(deployment, message.secrets)
    held.keep(deployment, message.secrets)
    assert held.values(deployment)["PASSWORD"].value == CANARY
    assert "c4nary" not in message.model_dump_json() + repr(message)
    with world.read() as conn:
        told = json.dumps([str(one) for one in events.since(conn, 0, 1000)])
    assert "secret-set" in told
    assert "c4nary" not in told
    on_disk = [path for path in world.master.home.rglob("*") if path.is_file() and b"c4nary" in path.read_bytes()]
    assert on_disk == []


def test_a_deploy_without_a_value_names_what_is_missing_and_the_cure(world: World, place: tuple[Project, Path]) -> None:
    agent, dev = _agent(world), _dev(world, place[0])
    world.call(lambda tx: placements.observe(tx.conn, dev.id, "local", {"given": ["TOKEN"]}))
    push(world, *place, TEXT)
    [job] = agent.orders()
    agent.finish(job, images=(BUILT,))
    assert world.run().state is State.FAILED
    assert "keepflow secret set keepwork/dev PASSWORD" in world.run().reason


@pytest.mark.parametrize("given", [["PASSWORD"], None])
def test_what_the_host_has_itself_or_does_not_tell_is_the_hosts_affair(
    world: World, place: tuple[Project, Path], given: list[str] | None
) -> None:
    agent, dev = _agent(world), _dev(world, place[0])
    world.call(lambda tx: placements.observe(tx.conn, dev.id, "local", {"given": given}))
    push(world, *place, TEXT)
    [job] = agent.orders()
    agent.finish(job, images=(BUILT,))
    [message] = agent.orders()
    assert (_order(message).secrets, message.secrets) == ((), {})


def test_versions_only_rise_and_a_removed_value_is_gone(
    world: World, place: tuple[Project, Path], put: Callable[..., Any]
) -> None:
    put()
    dev = _dev(world, place[0])
    world.call(lambda tx: confiding.remove(tx, dev, "PASSWORD", "bo", world.tick()))
    with world.read() as conn:
        assert secrets.of_environments.held(conn, dev.id) == {}
        assert [one.sealed for one in secrets.of_environments.every(conn, dev.id)] == [None]
    assert put().version == 2
    with pytest.raises(errors.NotFound):
        world.call(lambda tx: confiding.remove(tx, dev, "OTHER", "bo", world.tick()))


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("PASSWORD", "", "bad-value"),
        ("PASSWORD", "c4nary\0", "bad-value"),
        ("PASSWORD", "c4nary\ud800", "bad-value"),
        ("PASSWORD", "c4nary" * 11_000, "secrets-too-large"),
        ("../PASSWORD", "c4nary", "bad-name"),
        ("1PASSWORD", "c4nary", "bad-name"),
        ("PASSWORD\n", "c4nary", "bad-name"),
        ("", "c4nary", "bad-name"),
        ("P" * 101, "c4nary", "bad-name"),
    ],
)
def test_what_no_host_could_hand_on_is_refused_without_a_word_of_it(
    put: Callable[..., Any], name: str, value: str, code: str
) -> None:
    with pytest.raises(errors.UsageError) as refused:
        put(name, value)
    assert refused.value.code == code
    assert "c4nary" not in str(refused.value)


def test_64_kib_are_taken_and_all_together_fit_one_frame(put: Callable[..., Any]) -> None:
    for name in "ABCD":
        put(name, "x" * secret_values.LARGEST)
    with pytest.raises(errors.UsageError):
        put("E", "x")
    put("A", "x")
    put("E", "x")


def test_a_sealing_key_that_the_agent_did_not_sign_is_refused(world: World) -> None:
    agent, other = world.agent("prod-1"), world.agent("prod-2")
    signature = base64.b64encode(agent.key.sign(messages.hello_bytes("c", agent.key.public.key_id, "own"))).decode()
    sealing_key = base64.b64encode(other.key.opening.public).decode()
    for signer, fits in ((other.key, False), (agent.key, True)):
        proof = signer.sign(messages.sealing_bytes(agent.key.public.key_id, sealing_key))
        hello = messages.Hello(
            key_id=agent.key.public.key_id,
            signature=signature,
            nonce="own",
            version="1",
            sealing_key=sealing_key,
            sealing_proof=base64.b64encode(proof).decode(),
        )
        if fits:
            assert enrol.greet(world.master, "c", hello, world.tick())[0].name == "prod-1"
        else:
            with pytest.raises(errors.BadSignature):
                enrol.greet(world.master, "c", hello, world.tick())
