"""What an agent that lies can put into the master's database: bounded words, numbers a database can hold, no more."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from keepflow.core.states import Phase
from keepflow.wire import messages
from tests.engine.test_deploy_runs import TEXT, _accept, _built, _deployment
from tests.engine.test_dispatch import push
from tests.engine.world import World

BIG = 2**63
BOTH = ("run", "deploy")


@pytest.mark.parametrize(
    "told",
    [
        {"type": "report", "number": BIG, "body": {"type": "job-started", "fence": 1, "at": 1}},
        {"type": "report", "number": 1, "body": {"type": "job-started", "fence": BIG, "at": 1}},
        {"type": "report", "number": 1, "body": {"type": "job-started", "fence": -1, "at": 1}},
        {"type": "report", "number": 1, "body": {"type": "job-finished", "fence": 1, "at": BIG, "state": "failed"}},
        {"type": "received", "ids": [1, BIG]},
        {"type": "heartbeat", "at": 1, "running": [BIG]},
        {"type": "hello", "key_id": "k", "signature": "s", "nonce": "n", "version": "1", "slots": BIG},
        {"type": "hello", "key_id": "k", "signature": "s", "nonce": "n", "version": "1", "running": [BIG]},
        {
            "type": "report",
            "number": 1,
            "body": {"type": "deploy-answer", "fence": 1, "at": 1, "accepted": True, "deployment": "x" * 300_000},
        },
    ],
)
def test_numbers_that_no_database_holds_and_endless_names_are_no_message(told: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        messages.from_agent.validate_json(json.dumps(told))


def test_an_agent_cannot_fill_the_database_with_what_it_says_of_its_deployment(world: World) -> None:
    project, repository = world.project()
    world.environment(project, "dev", ["dev"])
    agent = world.agent(capabilities=BOTH)
    push(world, project, repository, TEXT)
    deploy = _built(agent)
    _accept(agent, deploy)
    named = {"fence": deploy.fence, "deployment": deploy.deployment, "at": 3}
    for _ in range(600):
        agent.report(messages.DeployPhase(**named, phase="p" * 5000, detail="d" * 5000))
    words = {"code": "c" * 5000, "sentence": "s\0" * 5000, "log_tail": "l" * 900_000}
    agent.report(messages.DeployFinished(**named, outcome="failed", **words))
    found = _deployment(world)
    assert found.phase is Phase.FAILED
    assert len(json.dumps(found.phases)) < 1_200_000
    assert max(len(found.reason_code), len(found.reason), len(found.log_tail)) <= 64 * 1024
    assert "\0" not in found.reason


def test_what_an_agent_says_of_a_deployment_of_another_agent_changes_nothing(world: World) -> None:
    project, repository = world.project()
    world.environment(project, "dev", ["dev"])
    agent = world.agent(capabilities=BOTH)
    push(world, project, repository, TEXT)
    deploy = _built(agent)
    other = world.agent("other", capabilities=BOTH)
    named = {"fence": deploy.fence, "deployment": deploy.deployment, "at": 3}
    other.report(messages.DeployAnswer(**named, accepted=True))
    other.report(messages.DeployFinished(**named, outcome="done", serving="sha256:" + "e" * 64))
    assert _deployment(world).phase is Phase.OFFERED
    _accept(agent, deploy)
    assert _deployment(world).phase is Phase.ACCEPTED
