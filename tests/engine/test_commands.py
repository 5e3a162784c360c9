"""Starting flows by hand (R09, R18)."""

from __future__ import annotations

import pytest

from keepflow import errors
from keepflow.core.events import EventKind
from keepflow.engine import commands
from tests.engine.world import SCRIPT, World
from tests.tools.repositories import git

MANUAL = """
version: 1
flows:
  checks:
    on: {manual: true}
    inputs: {suite: {choices: [fast, all], default: fast}, who: {}}
    steps: [{run: make}]
  dev:
    on: {push: dev}
    steps: [{run: make}]
"""


def _start(world: World, flow: str = "checks", ref: str = "dev", **inputs: str) -> int:
    return commands.run_flow(world.master, "keepwork", flow, ref, inputs, "bo")


def test_r09_a_flow_starts_by_hand_at_the_newest_commit_of_a_branch(world: World) -> None:
    project, repository = world.project()
    sha = world.push(project, repository, {".keepflow.yml": MANUAL}, message="newest")
    world.environment(project, "dev", ["dev"])
    assert _start(world) == 1
    run = world.run()
    assert (run.sha, run.ref, run.actor, run.message, run.why) == (
        sha,
        "refs/heads/dev",
        "bo",
        "newest",
        "started by bo",
    )
    assert (run.event.kind, run.event.inputs, run.trust) == (
        EventKind.MANUAL,
        {"suite": "fast", "who": ""},
        "protected",
    )


def test_r09_without_a_branch_the_main_one_is_meant_and_tags_work_too(world: World) -> None:
    project, repository = world.project()
    sha = world.push(project, repository, {".keepflow.yml": MANUAL}, branch="master")
    git(repository, "update-ref", "refs/tags/v1", sha)
    for ref, full in (("", "refs/heads/master"), ("v1", "refs/tags/v1"), ("refs/heads/master", "refs/heads/master")):
        assert world.run(_start(world, ref=ref)).ref == full


def test_r09_a_flow_starts_at_a_commit_of_the_branch_and_with_the_flow_file_of_that_commit(world: World) -> None:
    project, repository = world.project()
    old = world.push(project, repository, {".keepflow.yml": MANUAL})
    world.push(project, repository, {".keepflow.yml": SCRIPT})
    for commit in (old, old[:7]):
        number = commands.run_flow(world.master, "keepwork", "checks", "dev", {}, "bo", commit)
        assert (world.run(number).sha, world.run(number).ref) == (old, "refs/heads/dev")


def test_r09_a_commit_of_another_branch_or_none_is_refused(world: World) -> None:
    project, repository = world.project()
    mine = world.push(project, repository, {".keepflow.yml": MANUAL})
    git(repository, "update-ref", "refs/heads/other", mine)
    theirs = world.push(project, repository, {"evil": "1"}, branch="other")
    git(repository, "update-ref", "refs/heads/" + "d" * 8, theirs)  # a branch whose name looks like the id of a commit
    world.master.mirrors.fetch(project, "refs/heads/other")
    world.master.mirrors.fetch(project, "refs/heads/" + "d" * 8)
    for commit in (theirs, theirs[:8], "d" * 8, "f" * 40):
        with pytest.raises(errors.NotFound) as caught:
            commands.run_flow(world.master, "keepwork", "checks", "dev", {}, "bo", commit)
        assert caught.value.code == "no-commit"
    for commit in ("HEAD", "--output=x", mine[:6], f"{mine}^", mine.upper(), f"{mine}\n"):
        with pytest.raises(errors.UsageError) as wrong:
            commands.run_flow(world.master, "keepwork", "checks", "dev", {}, "bo", commit)
        assert wrong.value.code == "bad-commit"
    assert world.runs() == []


def test_r18_inputs_are_those_that_are_declared(world: World) -> None:
    project, repository = world.project()
    world.push(project, repository, {".keepflow.yml": MANUAL})
    assert world.run(_start(world, suite="all", who="$(id)")).event.inputs == {"suite": "all", "who": "$(id)"}
    with pytest.raises(errors.UsageError, match="did you mean"):
        _start(world, suit="all")
    with pytest.raises(errors.UsageError, match="one of fast, all"):
        _start(world, suite="slow")


def test_what_cannot_be_started_says_why(world: World) -> None:
    project, repository = world.project()
    world.push(project, repository, {".keepflow.yml": MANUAL})
    with pytest.raises(errors.NotFound, match="no flow"):
        _start(world, flow="check")
    with pytest.raises(errors.Refused, match="manual: true"):
        _start(world, flow="dev")
    with pytest.raises(errors.NotFound, match="no branch or tag"):
        _start(world, ref="--upload-pack=x")
    with pytest.raises(errors.NotFound, match=r"neither a branch main nor master; say which .*, such as 'dev'$"):
        _start(world, ref="")
    world.push(project, repository, {".keepflow.yml": "version: [", "x": "y"}, branch="broken")
    with pytest.raises(errors.UsageError) as caught:
        _start(world, ref="broken")
    assert ".keepflow.yml:2:1: syntax" in caught.value.message
    with pytest.raises(errors.NotFound, match="no project"):
        commands.run_flow(world.master, "nothing", "dev", "", {}, "bo")
    assert world.runs() == []


def test_a_push_flow_of_the_world_still_starts_by_push_only(world: World) -> None:
    project, repository = world.project()
    world.push(project, repository, {".keepflow.yml": SCRIPT})
    with pytest.raises(errors.Refused) as caught:
        _start(world, flow="dev")
    assert caught.value.code == "not-manual"
