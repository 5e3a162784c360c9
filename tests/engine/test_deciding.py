"""From a delivery to its decision: every push ends in runs or in a sentence (R01, R02, R04, R08, R14, R15)."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from keepflow import errors
from keepflow.core.events import Event, EventKind
from keepflow.core.matching import OWN_EMAIL
from keepflow.core.states import State
from keepflow.store import deliveries, events, heads
from keepflow.store.projects import Project
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


def test_the_word_to_skip_is_read_in_the_commit_itself_whoever_tells_of_it(world: World) -> None:
    project, repository = world.project()
    sha = world.push(project, repository, {".keepflow.yml": SCRIPT}, message="docs\n\nbody [no ci]")
    world.send(project, world.pushed(sha, message=""))
    assert (world.run().state, world.run().reason_code) == (State.SKIPPED, "skip-word")


PATHS = "version: 1\nflows:\n  web:\n    on: {push: '**', paths: [web/**]}\n    steps: [{run: make}]\n"


def _why(world: World, project: Project, event: Event) -> str:
    decision = world.send(project, event).decision
    assert decision is not None
    return str(decision["not"].get("web") or decision["runs"][0]["why"])


def test_r02_paths_are_asked_against_what_was_taken_before_and_not_against_what_a_hook_says(world: World) -> None:
    project, repository = world.project()
    first = world.push(project, repository, {".keepflow.yml": PATHS})
    assert "its paths are not asked" in _why(world, project, world.pushed(first)), "the first push of all"
    docs = world.push(project, repository, {"docs/a": "1"})
    assert "'docs/a', fits none of paths" in _why(world, project, world.pushed(docs, before=first))
    assert len(world.runs()) == 1
    lost = world.push(project, repository, {"web/a": "1"})
    told = world.push(project, repository, {"docs/a": "2"})
    assert "'web/a' changed" in _why(world, project, world.pushed(told, before=lost)), "the hook of `lost` never came"
    assert [run.sha for run in world.runs()] == [first, told]


def test_a_new_branch_is_compared_with_the_main_branch_and_a_forced_push_with_what_it_replaced(world: World) -> None:
    project, repository = world.project()
    base = world.push(project, repository, {".keepflow.yml": PATHS, "web/a": "1"}, branch="main")
    world.send(project, world.pushed(base, "main"))
    git(repository, "update-ref", "refs/heads/topic", base)
    assert "a branch that is new" in _why(world, project, world.pushed(base, "topic"))
    git(repository, "update-ref", "refs/heads/other", base)
    docs = world.push(project, repository, {"docs/a": "1"}, branch="other")
    assert "'docs/a', fits none" in _why(world, project, world.pushed(docs, "other"))
    git(repository, "update-ref", "refs/heads/other", base)
    forced = world.push(project, repository, {"web/a": "2"}, branch="other")
    assert "'web/a' changed" in _why(world, project, world.pushed(forced, "other", before=docs, forced=True))
    assert "'web/a' changed" not in _why(world, project, world.pushed(base, "main"))


def test_a_forced_push_over_a_commit_that_nobody_has_any_more_starts_the_flow(world: World) -> None:
    project, repository = world.project()
    world.push(project, repository, {".keepflow.yml": PATHS})
    sha = world.push(project, repository, {"docs/a": "1"})
    why = _why(world, project, world.pushed(sha, before="c" * 40, forced=True))
    assert "cccccccccccc, from which it came, is gone" in why


def test_r07_commits_and_tags_that_keepflow_made_start_nothing(world: World) -> None:
    project, repository = world.project()
    text = SCRIPT.replace("push: dev", "push: '**', tag: '**'")
    sha = world.push(project, repository, {".keepflow.yml": text})
    identity = {"GIT_COMMITTER_NAME": "keepflow", "GIT_COMMITTER_EMAIL": OWN_EMAIL}
    tree = git(repository, "rev-parse", f"{sha}^{{tree}}")
    own = git(repository, "commit-tree", tree, "-p", sha, "-m", "Raise the version", **identity)
    git(repository, "update-ref", "refs/heads/dev", own)
    git(repository, "tag", "-a", "-m", "by keepflow", "v1", sha, **identity)
    git(repository, "tag", "keepflow/v2", sha)
    git(repository, "tag", "-a", "-m", "by ann", "v3", sha)
    told = [world.send(project, world.pushed(own))]
    told += [
        world.send(project, Event(EventKind.TAG, f"refs/tags/{name}", sha)) for name in ("v1", "keepflow/v2", "v3")
    ]
    sentences = [delivery.decision["sentence"] for delivery in told if delivery.decision]
    assert [("keepflow made this" in sentence) for sentence in sentences] == [True, True, True, False]
    assert [run.ref for run in world.runs()] == ["refs/tags/v3"]
    with world.read() as conn:
        assert heads.get(conn, project.id, "refs/heads/dev") == own, "the sweep must not find it again"


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
