"""From a delivery to its decision: every push ends in runs or in a sentence (R01, R02, R04, R08, R14, R15)."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from keepflow import errors
from keepflow.core.events import Event, EventKind
from keepflow.core.states import State
from keepflow.store import deliveries, events, heads
from tests import hostile
from tests.engine.world import SCRIPT, World
from tests.tools.repositories import git


def test_r01_a_push_starts_a_run_with_exactly_its_commit_and_branch(world: World) -> None:
    project, repository = world.project()
    sha = world.push(project, repository, {".keepflow.yml": SCRIPT}, message="first\n\nbody")
    delivery = world.send(project, world.pushed(sha, message="first\n\nbody"))
    run = world.run()
    assert (run.sha, run.ref, run.flow, run.actor, run.message) == (
        sha,
        "refs/heads/dev",
        "dev",
        "ann",
        "first\n\nbody",
    )
    assert delivery.handled
    assert delivery.decision is not None
    assert delivery.decision["runs"] == [{"flow": "dev", "run": 1, "why": run.why}]
    assert "dev" in run.why
    assert run.delivery_id == delivery.id


def test_r02_a_push_that_fits_no_flow_says_why_for_every_flow(world: World) -> None:
    project, repository = world.project()
    sha = world.push(project, repository, {".keepflow.yml": SCRIPT}, branch="feature")
    delivery = world.send(project, world.pushed(sha, "feature"))
    assert world.runs() == []
    assert delivery.decision is not None
    assert "no flow" in delivery.decision["sentence"]
    assert "feature" in delivery.decision["not"]["dev"]


def test_r08_a_delivery_that_was_handled_is_not_handled_again(world: World) -> None:
    project, repository = world.project()
    sha = world.push(project, repository, {".keepflow.yml": SCRIPT})
    first = world.deliver(project, world.pushed(sha), "same-id")
    world.handle(first)
    again = world.deliver(project, world.pushed(sha), "same-id")
    assert again == first
    world.handle(again)
    assert len(world.runs()) == 1


def test_r14_the_flow_file_is_read_at_the_pushed_commit_under_the_projects_name_for_it(world: World) -> None:
    project, repository = world.project(flow_file="ci/flows.yml")
    sha = world.push(project, repository, {"ci/flows.yml": SCRIPT, ".keepflow.yml": "broken: ["})
    world.push(project, repository, {"ci/flows.yml": "also: [broken"})
    world.send(project, world.pushed(sha))
    assert world.run().flow == "dev"


def test_r15_a_commit_without_a_flow_file_is_a_visible_failed_run(world: World) -> None:
    project, repository = world.project()
    delivery = world.send(project, world.pushed(world.push(project, repository)))
    run = world.run()
    assert (run.flow, run.state, run.reason_code) == ("none", State.FAILED, "no-flow-file")
    assert "keepflow init" in run.reason
    assert delivery.decision is not None
    assert delivery.decision["sentence"] == run.reason


def test_r16_a_broken_flow_file_is_a_failed_run_with_every_problem_in_its_reason_and_its_log(world: World) -> None:
    project, repository = world.project()
    broken = (
        "version: 1\nflows:\n  dev:\n    on: {push: dev}\n    stepz: []\n"
        "  test:\n    on: {puhs: dev}\n    steps: [{run: x}]\n"
    )
    world.send(project, world.pushed(world.push(project, repository, {".keepflow.yml": broken})))
    run = world.run()
    assert (run.flow, run.state, run.reason_code) == ("none", State.FAILED, "config")
    assert ".keepflow.yml:5:" in run.reason
    assert ".keepflow.yml:7:" in run.reason
    job = world.jobs()["flow-file"]
    assert job.state is State.FAILED
    world.close()  # the log thread has written everything when it has stopped
    assert (world.home / "home/logs/keepwork/1/flow-file.1.log").read_text() == f"{run.reason}\n"


def test_a_commit_that_asks_to_be_skipped_is_a_visible_skipped_run(world: World) -> None:
    project, repository = world.project()
    sha = world.push(project, repository, {".keepflow.yml": SCRIPT}, message="docs [skip ci]")
    world.send(project, world.pushed(sha, message="docs [skip ci]"))
    run = world.run()
    assert (run.flow, run.state, run.reason_code) == ("dev", State.SKIPPED, "skip-word")
    assert "[skip ci]" in run.reason


def test_a_remote_that_cannot_be_asked_leaves_the_delivery_waiting(world: World) -> None:
    project, repository = world.project()
    sha = world.push(project, repository, {".keepflow.yml": SCRIPT})
    delivery_id = world.deliver(project, world.pushed(sha))
    away = repository.rename(repository.with_name("away"))
    with pytest.raises(errors.CommandFailed):
        world.handle(delivery_id)
    assert not world.delivery(delivery_id).handled
    shutil.move(away, repository)
    world.handle(delivery_id)
    assert len(world.runs()) == 1


def test_a_branch_that_is_gone_or_rewritten_is_decided_without_a_run(world: World) -> None:
    project, repository = world.project()
    sha = world.push(project, repository, {".keepflow.yml": SCRIPT})
    gone = world.send(project, world.pushed(sha, "never"))
    world.send(project, world.pushed(sha))
    git(repository, "update-ref", "-d", "refs/heads/dev")
    rewritten_to = world.push(project, repository, {".keepflow.yml": SCRIPT, "x": "y"})
    rewritten = world.send(project, world.pushed(sha))
    assert gone.decision is not None
    assert rewritten.decision is not None
    assert "not at the remote any more" in gone.decision["sentence"]
    assert "was rewritten" in rewritten.decision["sentence"]
    assert rewritten_to[:12] in rewritten.decision["sentence"]
    assert len(world.runs()) == 1


def test_p03_a_hook_that_comes_after_a_newer_one_does_not_bring_old_code_back(world: World) -> None:
    project, repository = world.project()
    old = world.push(project, repository, {".keepflow.yml": SCRIPT})
    new = world.push(project, repository)
    world.send(project, world.pushed(new, before=old))
    late = world.send(project, world.pushed(old))
    assert [(run.sha, run.state) for run in world.runs()] == [(new, State.WAITING), (old, State.SUPERSEDED)]
    assert "keepwork#1" in world.run(2).reason
    assert late.decision is not None
    assert late.decision["runs"][0]["run"] == 2
    with world.read() as conn:
        assert heads.get(conn, project.id, "refs/heads/dev") == new


def test_two_pushes_told_in_order_are_both_built_although_the_branch_is_further(world: World) -> None:
    project, repository = world.project()
    old = world.push(project, repository, {".keepflow.yml": SCRIPT})
    new = world.push(project, repository)
    world.send(project, world.pushed(old))
    world.send(project, world.pushed(new, before=old))
    assert [run.sha for run in world.runs()] == [old, new]
    assert State.SUPERSEDED not in world.states()


def test_a_forced_push_back_to_an_older_commit_is_built(world: World) -> None:
    project, repository = world.project()
    old = world.push(project, repository, {".keepflow.yml": SCRIPT})
    new = world.push(project, repository)
    world.send(project, world.pushed(new))
    git(repository, "update-ref", "refs/heads/dev", old)
    world.send(project, world.pushed(old, before=new, forced=True))
    assert [run.sha for run in world.runs()] == [new, old]
    assert State.SUPERSEDED not in world.states()


def test_r05_a_tag_starts_its_own_flow(world: World) -> None:
    project, repository = world.project()
    text = "version: 1\nflows:\n  release:\n    on: {tag: 'v*'}\n    steps: [{run: make}]\n"
    sha = world.push(project, repository, {".keepflow.yml": text})
    git(repository, "update-ref", "refs/tags/v1.0", sha)
    world.send(project, Event(EventKind.TAG, "refs/tags/v1.0", sha, actor="ann"))
    assert (world.run().flow, world.run().trust) == ("release", "other")


def test_trust_is_protected_only_for_branches_that_reach_an_environment(world: World) -> None:
    project, repository = world.project()
    world.environment(project, "dev", ["dev", "!dev-*"])
    text = "version: 1\nflows:\n  all:\n    on: {push: '**'}\n    steps: [{run: make}]\n"
    for branch in ("dev", "feature"):
        sha = world.push(project, repository, {".keepflow.yml": text}, branch=branch)
        world.send(project, world.pushed(sha, branch))
    assert [run.trust for run in world.runs()] == ["protected", "other"]


def test_p24_hostile_branch_names_run_nothing_and_are_built_as_any_other(world: World) -> None:
    project, repository = world.project()
    text = "version: 1\nflows:\n  all:\n    on: {push: '**'}\n    steps: [{run: make}]\n"
    sha = world.push(project, repository, {".keepflow.yml": text}, branch="base")
    for number, name in enumerate(hostile.NAMES, 1):
        git(repository, "update-ref", "--no-deref", f"refs/heads/{name}", sha)
        delivery = world.send(project, world.pushed(sha, name))
        run = world.run(number)
        assert (run.ref, run.sha, delivery.handled) == (f"refs/heads/{name}", sha, True), name
        git(repository, "update-ref", "-d", f"refs/heads/{name}")
    assert not Path(hostile.CANARY).exists()


@pytest.mark.parametrize(
    "ref", ["", "dev", "refs/heads/", "refs/heads/a b", "refs/heads/..", "-x", "refs/heads/a\x00b", "refs/heads/x.lock"]
)
def test_p24_what_is_no_ref_at_all_is_refused_in_words(world: World, ref: str) -> None:
    project, repository = world.project()
    sha = world.push(project, repository, {".keepflow.yml": SCRIPT})
    delivery = world.send(project, replace(world.pushed(sha), ref=ref))
    assert delivery.decision is not None
    assert "not a full ref name" in delivery.decision["sentence"]
    assert world.runs() == []


def test_the_decision_its_runs_and_its_mark_are_one_transaction(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    project, repository = world.project()
    sha = world.push(project, repository, {".keepflow.yml": SCRIPT})
    delivery_id = world.deliver(project, world.pushed(sha))
    real = deliveries.decide_all

    def breaks(*_: object) -> bool:
        raise RuntimeError("killed between the run and the mark")

    monkeypatch.setattr(deliveries, "decide_all", breaks)
    with pytest.raises(RuntimeError):
        world.handle(delivery_id)
    assert world.runs() == []
    assert world.find_project("keepwork").next_number == 1
    monkeypatch.setattr(deliveries, "decide_all", real)
    world.handle(delivery_id)
    assert [run.number for run in world.runs()] == [1]
    with world.read() as conn:
        assert events.broken_at(conn) is None
