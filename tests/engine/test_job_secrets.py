"""Secrets of projects on the master: sealed at rest and to one agent, for the runs their binding names and no other."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from keepflow import errors
from keepflow.agent.job_secrets import opened
from keepflow.core.events import Event, EventKind
from keepflow.core.job_secrets import Binding
from keepflow.core.states import State
from keepflow.engine import commands, job_secrets, lending, rerunning
from keepflow.store import events, runs, secrets
from keepflow.store.projects import Project
from keepflow.store.tables import outgoing, project_secrets
from tests.engine.test_dispatch import flow, push
from tests.engine.test_pull_requests import FLOW, Forge
from tests.engine.world import PlayedAgent, World

CANARY = "c4nary-hunter22\nsecond line"
TEXT = flow(steps="[{run: make, secrets: [NPM_TOKEN]}]")


@pytest.fixture
def place(world: World) -> tuple[Project, Path]:
    project, repository = world.project()
    world.environment(project, "dev", ["dev"])
    return project, repository


@pytest.fixture
def put(world: World, place: tuple[Project, Path]) -> Callable[..., Any]:
    def call(name: str = "NPM_TOKEN", value: str = CANARY, binding: Binding | None = None) -> Any:
        return world.call(
            lambda tx: job_secrets.put(tx, world.master, place[0], name, value, binding, "bo", world.tick())
        )

    return call


def _agent(world: World) -> PlayedAgent:
    agent = world.agent()
    agent.connect(sealing_key=base64.b64encode(agent.key.opening.public).decode())
    return agent


def test_r31_a_value_goes_from_the_vault_to_the_one_agent_and_lies_open_nowhere(
    world: World, place: tuple[Project, Path], put: Callable[..., Any]
) -> None:
    put(value="older-value")
    put()
    agent, other = _agent(world), _agent_beside(world)
    push(world, *place, TEXT)
    with world.read() as conn:
        rows = json.dumps([str(row) for row in conn.execute(outgoing.select()).mappings()])
        told = json.dumps([str(one) for one in events.since(conn, 0, 1000)])
    [order] = agent.orders()
    assert opened(order, agent.key.opening) == {"NPM_TOKEN": CANARY}
    assert opened(order, other.key.opening) == {}, "only the agent that runs the job opens it"
    assert [(one.name, one.version) for one in order.secrets] == [("NPM_TOKEN", 2)]
    assert order.steps[0].secrets[0].env == "NPM_TOKEN"
    for text in (rows, told, order.model_dump_json(), repr(order)):
        assert "c4nary" not in text
    assert "secret-set" in told
    left = [path for path in world.master.home.rglob("*") if path.is_file() and b"c4nary" in path.read_bytes()]
    assert left == []


def _agent_beside(world: World) -> PlayedAgent:
    return world.agent("other", slots=0)


def test_an_order_brings_only_what_the_job_names(
    world: World, place: tuple[Project, Path], put: Callable[..., Any]
) -> None:
    put()
    put("OTHER", "another-value")
    agent = _agent(world)
    push(world, *place, TEXT)
    assert [one.name for one in agent.orders()[0].secrets] == ["NPM_TOKEN"]


def test_a_missing_secret_ends_the_job_and_names_the_cure(world: World, place: tuple[Project, Path]) -> None:
    agent = _agent(world)
    push(world, *place, TEXT)
    assert (world.run().state, world.run().reason_code) == (State.FAILED, "no-secret")
    assert "keepflow secret set keepwork NPM_TOKEN" in world.run().reason
    assert agent.orders() == []


def test_a_branch_that_reaches_no_environment_gets_none_unless_it_is_named(
    world: World, place: tuple[Project, Path], put: Callable[..., Any]
) -> None:
    put()
    agent = _agent(world)
    push(world, *place, TEXT, branch="feature")
    assert world.run().state is State.FAILED
    assert "branch 'feature' reaches no environment" in world.run().reason
    put(binding=Binding(branches=("feature",)))
    push(world, *place, TEXT, branch="feature")
    assert [one.name for one in agent.orders()[0].secrets] == ["NPM_TOKEN"]


def test_r06_a_pull_request_gets_no_secret_whatever_the_binding(
    world: World, place: tuple[Project, Path], put: Callable[..., Any]
) -> None:
    put(binding=Binding(branches=("**",), tags=("**",)))
    agent = _agent(world)
    push(world, *place, TEXT)
    run = world.run()
    for kind, trust in ((EventKind.PULL_REQUEST, "other"), (EventKind.PUSH, "fork")):
        event = Event(kind, run.ref, run.sha, actor="eve").to_json()
        world.call(lambda tx, event=event, trust=trust: _rewrite(tx, run.id, event, trust))
        with world.read() as conn:
            changed = runs.by_id(conn, run.id)
            job = world.jobs()["steps"]
            sentence = job_secrets.lacking(conn, changed, job)
            attempt = _attempt(conn, job.id)
            assert job_secrets.lent(conn, world.master, place[0], changed, job, attempt) == ()
        assert sentence is not None
        assert "pull requests and forks" in sentence
    assert agent.orders()


def _rewrite(tx: Any, run_id: int, event: dict[str, Any], trust: str) -> None:
    tx.conn.execute(update(runs.runs).where(runs.runs.c.id == run_id).values(event=event, trust=trust))


def _attempt(conn: Any, job_id: int) -> Any:
    from keepflow.store import jobs

    return jobs.attempts_of(conn, job_id)[-1]


def test_p13_who_writes_to_the_database_cannot_widen_a_binding_or_move_a_value(
    world: World, place: tuple[Project, Path], put: Callable[..., Any]
) -> None:
    put(binding=Binding(branches=("main",)))
    for change in ({"binding": {"branches": ["**"]}}, {"name": "NPM_TOKEN2"}, {"version": 7}):
        put(binding=Binding(branches=("main",)))
        world.call(lambda tx, change=change: tx.conn.execute(update(project_secrets).values(**change)))
        with world.read() as conn, pytest.raises(errors.BadSeal):
            job_secrets.values(conn, world.master.vault, place[0])
        world.call(lambda tx: tx.conn.execute(project_secrets.delete()))


def test_rotation_keeps_the_binding_and_the_next_job_gets_the_new_value(
    world: World, place: tuple[Project, Path], put: Callable[..., Any]
) -> None:
    put(value="first-value", binding=Binding(flows=("dev",)))
    agent = _agent(world)
    push(world, *place, TEXT)
    [first] = agent.orders()
    assert put(value="second-value").version == 2
    agent.finish(first)
    push(world, *place, TEXT)
    [second] = agent.orders()
    assert [opened(one, agent.key.opening)["NPM_TOKEN"] for one in (first, second)] == ["first-value", "second-value"]
    with world.read() as conn:
        assert job_secrets.binding_of(secrets.of_projects.held(conn, place[0].id)["NPM_TOKEN"]).flows == ("dev",)
    world.call(lambda tx: job_secrets.remove(tx, place[0], "NPM_TOKEN", "bo", world.tick()))
    with pytest.raises(errors.NotFound):
        world.call(lambda tx: job_secrets.remove(tx, place[0], "NPM_TOKEN", "bo", world.tick()))
    assert put().version == 3


@pytest.mark.parametrize(
    ("name", "value", "binding", "code"),
    [
        ("NPM_TOKEN", "c4nar", None, "secret-too-short"),
        ("NPM_TOKEN", "c4nary" * 11_000, None, "secrets-too-large"),
        ("NPM TOKEN", "c4nary", None, "bad-name"),
        ("../x", "c4nary", None, "bad-name"),
        ("NPM_TOKEN", "c4nary", Binding(branches=("refs/heads/x",)), "bad-pattern"),
        ("NPM_TOKEN", "c4nary", Binding(environments=("prod",)), "no-environment"),
    ],
)
def test_what_cannot_be_kept_or_masked_is_refused_without_a_word_of_it(
    put: Callable[..., Any], name: str, value: str, binding: Binding | None, code: str
) -> None:
    with pytest.raises(errors.KeepflowError) as refused:
        put(name, value, binding)
    assert refused.value.code == code
    assert "c4nar" not in str(refused.value)


def test_the_masters_log_masks_what_projects_and_environments_have(
    world: World, place: tuple[Project, Path], put: Callable[..., Any]
) -> None:
    put()
    with world.read() as conn:
        assert CANARY in lending.of_project(conn, world.master.vault, place[0]).secrets


@pytest.mark.parametrize("fork", [False, True])
def test_r06_a_real_pull_request_that_names_a_secret_gets_none_neither_approved_nor_run_again(
    world: World, fork: bool
) -> None:
    forge, agent = Forge(world), _agent(world)
    world.environment(forge.project, "dev", ["**"])
    everybody = Binding(branches=("**",), tags=("**",))
    world.call(lambda tx: job_secrets.put(tx, world.master, forge.project, "NPM_TOKEN", CANARY, everybody, "bo", 1))
    evil = (FLOW % "latest").replace("[{run: make}]", "[{run: env, secrets: NPM_TOKEN}]")
    forge.tell(forge.propose({".keepflow.yml": evil}), fork=fork)
    if fork:
        world.call(lambda tx: commands.approve_run(tx, world.master, world.run().id, "ann", world.tick()))
    world.call(lambda tx: rerunning.rerun(tx, world.master, world.run(1).id, "ann", world.tick()))
    if fork:
        world.call(lambda tx: commands.approve_run(tx, world.master, world.run(2).id, "ann", world.tick()))
    assert [(run.state, run.reason_code) for run in world.runs()] == [(State.FAILED, "no-secret")] * 2
    assert "pull requests and forks" in world.run(2).reason
    assert agent.orders() == []


@pytest.mark.parametrize("fork", [False, True])
def test_r06_a_pull_request_runs_without_an_optional_secret_and_still_never_gets_it(world: World, fork: bool) -> None:
    forge, agent = Forge(world), _agent(world)
    world.environment(forge.project, "dev", ["**"])
    everybody = Binding(branches=("**",), tags=("**",))
    world.call(lambda tx: job_secrets.put(tx, world.master, forge.project, "NPM_TOKEN", CANARY, everybody, "bo", 1))
    step = "[{run: env, secrets: [{name: NPM_TOKEN, optional: true}]}]"
    forge.tell(forge.propose({".keepflow.yml": (FLOW % "latest").replace("[{run: make}]", step)}), fork=fork)
    if fork:
        world.call(lambda tx: commands.approve_run(tx, world.master, world.run().id, "ann", world.tick()))
    [order] = agent.orders()
    assert (order.secrets, order.steps[0].secrets[0].optional) == ((), True)
    assert "c4nary" not in order.model_dump_json()


def test_a_secret_that_one_step_cannot_do_without_is_lacking_whatever_another_step_says(
    world: World, place: tuple[Project, Path]
) -> None:
    steps = "[{run: a, secrets: [{name: NPM_TOKEN, optional: true}]}, {run: b, secrets: NPM_TOKEN}]"
    push(world, *place, flow(steps=steps))
    assert (world.run().state, world.run().reason_code) == (State.FAILED, "no-secret")


def test_a_run_that_may_have_an_optional_secret_gets_it(
    world: World, place: tuple[Project, Path], put: Callable[..., Any]
) -> None:
    agent = _agent(world)
    put()
    push(world, *place, flow(steps="[{run: make, secrets: [{name: NPM_TOKEN, optional: true}]}]"))
    [order] = agent.orders()
    assert [one.name for one in order.secrets] == ["NPM_TOKEN"]
