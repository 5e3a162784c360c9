"""Receipts of deployments: kept as they came, and never believed further than the agent's key and its own words go."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from keepflow.crypto import dsse, keys
from keepflow.store.deployments import Deployment
from keepflow.store.projects import Project
from keepflow.wire import messages
from keepflow.wire.deployment_receipt import PAYLOAD_TYPE
from tests.engine.test_deploy_runs import IMAGE, TEXT, _accept, _built, _deployment
from tests.engine.test_dispatch import push
from tests.engine.world import PlayedAgent, World

EVIDENCE = {"probes": {"sent": 412, "failed": 0, "p99_ms": 3.1}, "slot": "green"}


@pytest.fixture
def place(world: World) -> tuple[Project, Path]:
    """A project whose dev branch reaches its dev environment."""
    project, repository = world.project()
    world.environment(project, "dev", ["dev"])
    return project, repository


def ended(
    world: World, place: tuple[Project, Path], seal: Callable[[PlayedAgent, dict[str, Any]], dict[str, Any] | None]
) -> tuple[Deployment, dict[str, Any] | None]:
    """Let a deployment end with a receipt that `seal` makes, and return how it is kept, and the receipt."""
    agent = world.agent(capabilities=("run", "deploy"))
    push(world, *place, TEXT)
    deploy = _built(agent)
    _accept(agent, deploy)
    said = {
        "version": 1, "deployment": deploy.deployment, "fence": deploy.fence, "identity": IMAGE, "outcome": "done",
        "code": "", "serving": IMAGE, "evidence": EVIDENCE,
    }  # fmt: skip
    envelope = seal(agent, said)
    agent.report(
        messages.DeployFinished(
            fence=deploy.fence, deployment=deploy.deployment, at=2, outcome="done", serving=IMAGE, receipt=EVIDENCE,
            envelope=envelope,
        )
    )  # fmt: skip
    return _deployment(world), envelope


def sealed(key: keys.PrivateKey, said: dict[str, Any], kind: str = PAYLOAD_TYPE) -> dict[str, Any]:
    return dsse.seal(json.dumps(said).encode(), kind, key)


def test_a_receipt_of_the_agents_key_is_good_and_kept_as_it_came(world: World, place: tuple[Project, Path]) -> None:
    found, envelope = ended(world, place, lambda agent, said: sealed(agent.key, said))
    assert (found.receipt_verdict, found.receipt_envelope, found.receipt) == ("good", envelope, EVIDENCE)


@pytest.mark.parametrize(
    "seal",
    [
        lambda agent, said: sealed(keys.generate(), {**said, "agent": agent.name}),
        lambda agent, said: sealed(agent.key, said, "application/json"),
        lambda agent, said: sealed(agent.key, {**said, "evidence": {}}),
        lambda agent, said: sealed(agent.key, {**said, "deployment": "another"}),
        lambda agent, said: sealed(agent.key, {**said, "outcome": "reverted"}),
        lambda agent, said: {**sealed(agent.key, said), "payload": "e30="},
        lambda agent, said: {"payload": 7, "signatures": agent.name, **dict.fromkeys(said)},
        lambda agent, said: dsse.seal(b"[" * (100_000 + len(said)), PAYLOAD_TYPE, agent.key),
    ],
)
def test_any_other_receipt_is_kept_and_marked_and_the_deployment_is_none_the_worse(
    world: World, place: tuple[Project, Path], seal: Callable[[PlayedAgent, dict[str, Any]], dict[str, Any]]
) -> None:
    found, envelope = ended(world, place, seal)
    assert (found.phase, found.receipt_verdict, found.receipt_envelope) == ("done", "bad", envelope)


def test_no_receipt_is_none(world: World, place: tuple[Project, Path]) -> None:
    found, _ = ended(world, place, lambda agent, said: None)  # noqa: ARG005 - fits the others
    assert (found.receipt_verdict, found.receipt_envelope) == ("none", None)


def test_an_endless_receipt_is_not_kept(world: World, place: tuple[Project, Path]) -> None:
    found, _ = ended(world, place, lambda agent, said: sealed(agent.key, {**said, "x": "y" * 300_000}))
    assert (found.receipt_verdict, found.receipt_envelope) == ("bad", None)
