"""Pull requests: the merge result is built, conflicts are told, code from forks waits for a person (R06)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from keepflow import errors
from keepflow.core.events import Event, EventKind
from keepflow.core.states import State
from keepflow.engine import commands, reconcile
from keepflow.store import events, heads
from keepflow.store.deliveries import Delivery
from keepflow.store.projects import Project
from keepflow.tools.git import Mirror
from tests.engine.world import World
from tests.tools.repositories import commit, git

FLOW = "version: 1\nflows:\n  check:\n    on: {pull_request: true}\n    concurrency: %s\n    steps: [{run: make}]\n"


class Forge:
    """A repository with a branch `main` and pull requests, as a forge keeps them."""

    def __init__(self, world: World, concurrency: str = "latest") -> None:
        self.world = world
        self.project, self.repository = world.project()
        files = {".keepflow.yml": FLOW % concurrency, "code": "a\nb\nc\n"}
        self.main = commit(self.repository, files, "base", "main")

    def propose(self, files: dict[str, Any], number: int = 7, *, again: bool = False, message: str = "change") -> str:
        """Open a pull request, or push to it again; its code lies under the ref that forges give it."""
        if not again:
            git(self.repository, "update-ref", "refs/heads/proposal", self.main)
        sha = commit(self.repository, files, message, "proposal")
        git(self.repository, "update-ref", f"refs/pull/{number}/head", sha)
        return sha

    def move_main(self, files: dict[str, Any]) -> str:
        """Push to the branch that pull requests go into."""
        return commit(self.repository, files, "meanwhile", "main")

    def event(self, sha: str, number: int = 7, **more: Any) -> Event:
        """Return what the forge tells."""
        return Event(
            EventKind.PULL_REQUEST,
            f"refs/pull/{number}/head",
            sha,
            message="Mend it",
            author="mallory",
            actor="mallory",
            target="refs/heads/main",
            number=number,
            **more,
        )

    def tell(self, sha: str, number: int = 7, **more: Any) -> Delivery:
        """Let the forge tell, and intake handle it."""
        return self.world.send(self.project, self.event(sha, number, **more))

    def show(self, sha: str, name: str) -> str:
        """Return a file at a commit of the master's mirror."""
        return git(self.world.master.mirrors.path(self.project), "show", f"{sha}:{name}")


@pytest.fixture
def forge(world: World) -> Forge:
    return Forge(world)


def test_r06_the_merge_result_is_built_and_never_the_target_alone(forge: Forge, world: World) -> None:
    """flow-build-server merged a branch that git did not know, went on, and told the pull request that all was well."""
    head = forge.propose({"new": "by the pull request"})
    target = forge.move_main({"other": "of main"})
    forge.tell(head)
    run = world.run()
    assert (run.event.head, run.event.tip, run.ref, run.trust) == (head, head, "refs/pull/7/head", "other")
    assert run.sha not in (head, target, forge.main)
    assert forge.show(run.sha, "new") == "by the pull request"
    assert forge.show(run.sha, "other") == "of main"
    parents = git(world.master.mirrors.path(forge.project), "show", "--no-patch", "--format=%P %cn", run.sha)
    assert parents == f"{target} {head} keepflow"


def test_a_pull_request_that_is_ahead_of_its_target_is_its_own_merge(forge: Forge, world: World) -> None:
    head = forge.propose({"new": "x"})
    forge.tell(head)
    assert (world.run().sha, world.run().state) == (head, State.WAITING)


def test_the_same_merge_is_the_same_commit_and_agents_get_it(forge: Forge, world: World) -> None:
    agent = world.agent()
    head = forge.propose({"new": "x"})
    forge.move_main({"other": "y"})
    forge.tell(head)
    [order] = agent.orders()
    agent.finish(order)
    forge.tell(head)
    assert world.run(1).sha == world.run(2).sha == order.sha
    assert (order.trust, order.logins, order.ref) == ("other", (), "refs/pull/7/head")
    told = {name: value for name, value in order.env.items() if name in ("KEEPFLOW_PULL_REQUEST", "KEEPFLOW_HEAD_SHA")}
    assert told == {"KEEPFLOW_PULL_REQUEST": "7", "KEEPFLOW_HEAD_SHA": head}
    assert order.env["KEEPFLOW_TARGET_BRANCH"] == "main"


def test_r06_a_conflict_is_a_failed_run_that_names_the_files(forge: Forge, world: World) -> None:
    head = forge.propose({"code": "a\nOURS\nc\n", "fine": "x"})
    forge.move_main({"code": "a\nTHEIRS\nc\n"})
    delivery = forge.tell(head)
    run = world.run()
    assert (run.flow, run.state, run.reason_code, run.sha) == ("check", State.FAILED, "merge-conflict", head)
    assert run.reason == "pull request 7 does not merge into 'main': a conflict in 'code'"
    assert delivery.decision is not None
    assert delivery.decision["runs"][0]["flow"] == "check"


def test_histories_without_a_common_commit_are_a_failed_run_too(forge: Forge, world: World) -> None:
    head = commit(forge.repository, {".keepflow.yml": FLOW % "latest"}, "strange", "strange")
    git(forge.repository, "update-ref", "refs/pull/7/head", head)
    forge.tell(head)
    assert (world.run().state, world.run().reason_code) == (State.FAILED, "merge-conflict")
    assert "unrelated histories" in world.run().reason


def test_a_flow_that_wants_no_pull_requests_is_not_told_of_conflicts(forge: Forge, world: World) -> None:
    head = forge.propose({"code": "x", ".keepflow.yml": (FLOW % "latest").replace("pull_request", "push")})
    forge.move_main({"code": "y"})
    delivery = forge.tell(head)
    assert world.runs() == []
    assert delivery.decision is not None
    assert delivery.decision["not"] == {"check": "its 'on' does not name pull_request"}


def test_r02_paths_ask_what_the_pull_request_brings_and_not_what_happened_on_its_target(
    forge: Forge, world: World
) -> None:
    flow = (FLOW % "latest").replace("pull_request: true", "pull_request: true, paths: web/")
    head = forge.propose({".keepflow.yml": flow, "docs/a": "x"})
    forge.move_main({"web/of-main": "x"})
    told = forge.tell(head)
    assert told.decision is not None
    assert "none of 2 changed files fits paths" in told.decision["not"]["check"]
    forge.tell(forge.propose({"web/a": "x"}, again=True))
    assert "'web/a' changed" in world.run().why


def test_a_pull_request_whose_newest_commit_asks_to_be_skipped_is_skipped(forge: Forge, world: World) -> None:
    head = forge.propose({"new": "x"}, message="docs [skip ci]")
    forge.move_main({"other": "y"})
    forge.tell(head)
    assert (world.run().state, world.run().reason_code) == (State.SKIPPED, "skip-word")


def test_a_pull_request_whose_branch_or_target_is_gone_is_decided_in_words(forge: Forge, world: World) -> None:
    head = forge.propose({"new": "x"})
    gone = world.send(forge.project, replace(forge.event(head), target="refs/heads/never"))
    rewritten = forge.tell("c" * 40)
    git(forge.repository, "update-ref", "-d", "refs/pull/7/head")
    away = forge.tell(head)
    sentences = [told.decision["sentence"] for told in (gone, rewritten, away) if told.decision]
    assert "'never', into which pull request 7 goes, is not at the remote" in sentences[0]
    assert "is no longer part of" in sentences[1]
    assert "is not at the remote any more" in sentences[2]
    assert world.runs() == []


def test_f11_a_late_hook_of_a_pull_request_does_not_bring_old_code_back(forge: Forge, world: World) -> None:
    old = forge.propose({"new": "1"})
    new = forge.propose({"new": "2"}, again=True)
    forge.move_main({"other": "y"})
    forge.tell(new)
    forge.tell(old)
    assert [(run.event.tip, run.state) for run in world.runs()] == [(new, State.WAITING), (old, State.SUPERSEDED)]


def test_the_sweep_forgets_no_pull_request(forge: Forge, world: World) -> None:
    reconcile.reconcile(world.master, forge.project)
    head = forge.propose({"new": "1"})
    git(forge.repository, "update-ref", "-d", "refs/heads/proposal")
    forge.tell(head)
    assert reconcile.reconcile(world.master, forge.project) == []
    with world.read() as conn:
        assert heads.get(conn, forge.project.id, "refs/pull/7/head") == head


# --- forks -----------------------------------------------------------------------------------------------------------


def _approve(world: World, number: int, by: str = "ann") -> commands.Answer:
    run_id = world.run(number).id
    return world.call(lambda tx: commands.approve_run(tx, world.master, run_id, by, world.tick()))


def test_r06_code_from_a_fork_waits_until_a_person_approves_it_and_gets_nothing_even_then(
    forge: Forge, world: World
) -> None:
    agent = world.agent()
    world.environment(forge.project, "dev", ["**"])
    forge.tell(forge.propose({"new": "x"}), fork=True)
    run = world.run()
    assert (run.state, run.reason_code, run.trust) == (State.WAITING, "needs-approval", "fork")
    assert run.reason == "waits for approval: pull request 7 by mallory comes from a fork; read its code first"
    assert agent.orders() == []
    assert _approve(world, 1).word == "approved"
    [order] = agent.orders()
    assert (order.trust, order.logins) == ("fork", ())
    assert world.run().approved_by == "ann"
    with world.read() as conn:
        assert any((found.kind, found.actor) == ("run-approved", "ann") for found in events.since(conn, 0, 100))
    with pytest.raises(errors.Refused):
        _approve(world, 1)


@pytest.mark.parametrize("concurrency", ["queue", "latest", "cancel"])
def test_new_code_in_a_fork_takes_the_place_of_what_nobody_approved(world: World, concurrency: str) -> None:
    forge = Forge(world, concurrency)
    forge.tell(forge.propose({"new": "1"}), fork=True)
    forge.tell(forge.propose({"new": "2"}, again=True), fork=True)
    assert [(run.state, run.reason_code) for run in world.runs()] == [
        (State.SUPERSEDED, "superseded"),
        (State.WAITING, "needs-approval"),
    ]
    with pytest.raises(errors.Refused):
        _approve(world, 1)


def test_code_of_a_fork_reaches_no_run_of_anybody_else_whatever_its_flow_file_says(world: World) -> None:
    flow = (FLOW % "{mode: cancel, group: slot}").replace("pull_request: true", "pull_request: true, push: main")
    forge, agent = Forge(world), world.agent()
    sha = commit(forge.repository, {".keepflow.yml": flow}, "ours", "main")
    world.send(forge.project, world.pushed(sha, "main"))
    [order] = agent.orders()
    forge.tell(forge.propose({".keepflow.yml": flow, "evil": "x"}), fork=True)
    assert [(run.state, run.reason_code) for run in world.runs()][1] == (State.WAITING, "needs-approval")
    assert world.run(1).state is not State.SUPERSEDED
    _approve(world, 2)
    assert world.run(1).state is not State.SUPERSEDED
    agent.finish(order)
    assert world.run(1).state is State.SUCCEEDED


def test_nobody_stands_in_line_behind_code_that_waits_for_approval(world: World) -> None:
    forge, agent = Forge(world, "queue"), world.agent()
    forge.tell(forge.propose({"new": "1"}, 1), 1, fork=True)
    forge.tell(forge.propose({"new": "2"}, 2), 2)
    [order] = agent.orders()
    assert order.run == 2
    agent.finish(order)
    assert world.states() == [State.WAITING, State.SUCCEEDED]


def test_a_fork_that_nobody_approves_can_be_cancelled(forge: Forge, world: World) -> None:
    forge.tell(forge.propose({"new": "1"}), fork=True)
    world.call(lambda tx: commands.cancel_run(tx, world.master, world.run().id, "ann", world.tick()))
    assert world.run().state is State.CANCELLED


def test_what_nobody_approves_lapses_and_is_never_taken_for_a_yes(forge: Forge, world: World) -> None:
    agent = world.agent()
    forge.tell(forge.propose({"new": "1"}), fork=True)
    made = world.run().created_at
    for now, state in (
        (made + commands.APPROVAL_WAITS, State.WAITING),
        (made + commands.APPROVAL_WAITS + 1, State.CANCELLED),
    ):
        world.call(lambda tx, now=now: commands.lapse_approvals(tx, world.master, now))
        assert world.run().state is state
    assert (world.run().reason_code, agent.orders()) == ("not-approved", [])
    with pytest.raises(errors.Refused):
        _approve(world, 1)


def test_r06_a_pull_request_deploys_nowhere(world: World) -> None:
    forge = Forge(world)
    agent = world.agent(capabilities=("run", "deploy"))
    world.environment(forge.project, "dev", ["**"])
    flow = (FLOW % "latest").replace("[{run: make}]", "[{run: make}, {deploy: dev}]")
    forge.tell(forge.propose({".keepflow.yml": flow}))
    [order] = agent.orders()
    agent.finish(order)
    assert world.run().state is State.FAILED
    assert "dev takes **, and this run is of refs/pull/7/head" in world.run().reason


# --- the merge itself ------------------------------------------------------------------------------------------------


def _merge(world: World, project: Project, target: str, head: str) -> Any:
    for ref in ("refs/heads/main", "refs/heads/proposal"):
        world.master.mirrors.fetch(project, ref)
    return world.master.mirrors.merge(project, target, head, "Merge\n")


def test_a_merge_names_every_conflict_and_leaves_no_ref_behind(forge: Forge, world: World) -> None:
    hostile = "$(touch x)\n'<script>'"
    head = forge.propose({"code": "1", hostile: "1", "same": "1"})
    target = forge.move_main({"code": "2", hostile: "2", "same": "1"})
    merged = _merge(world, forge.project, target, head)
    assert (merged.sha, set(merged.conflicts)) == (None, {"code", hostile})
    mirror = world.master.mirrors.path(forge.project)
    assert "refs/keepflow" not in git(mirror, "for-each-ref")


def test_a_merge_survives_the_tidying_of_the_mirror(forge: Forge, world: World, tmp_path: Path) -> None:
    head = forge.propose({"new": "1"})
    target = forge.move_main({"other": "2"})
    merged = _merge(world, forge.project, target, head)
    Mirror(world.master.mirrors.path(forge.project)).tidy()
    assert world.master.mirrors.has(forge.project, merged.sha)
    assert not list(tmp_path.glob("x"))
