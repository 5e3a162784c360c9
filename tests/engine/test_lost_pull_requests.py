"""Pull requests whose hooks were lost are found by the sweep, and closed ones let nothing wait (R06, F10)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from keepflow.core.events import Parsed
from keepflow.core.reasons import MEANINGS
from keepflow.core.states import State
from keepflow.engine import hooking, intake, reconcile
from keepflow.store import deliveries, projects
from keepflow.tools.git import Remote
from keepflow.wire import messages
from keepflow.wire.desired import DesiredApi
from tests.engine.test_pull_requests import Forge
from tests.engine.world import World
from tests.forges.served import TOKEN, ServedForge, served_forge
from tests.tools.repositories import git

Sweep = Callable[[], list[str]]


@pytest.fixture
def forge(world: World) -> Forge:
    return Forge(world)


@pytest.fixture
def sweep(world: World, forge: Forge) -> Sweep:
    """Compare with the remote once, as it is without the branch a pull request came from, and handle what was found."""

    def compare() -> list[str]:
        git(forge.repository, "update-ref", "-d", "refs/heads/proposal")
        found = reconcile.reconcile(world.master, world.find_project(forge.project.name))
        _handle(world, forge)
        return found

    compare()
    return compare


def _handle(world: World, forge: Forge) -> None:
    while True:
        with world.read() as conn:
            waiting = deliveries.next_unhandled(conn, forge.project.id)
        if waiting is None:
            return
        world.handle(waiting.id)


def test_f10_a_lost_hook_of_a_push_to_a_pull_request_is_found(forge: Forge, world: World, sweep: Sweep) -> None:
    first = forge.propose({"new": "1"})
    forge.tell(first)
    assert sweep() == []
    git(forge.repository, "update-ref", "refs/heads/proposal", first)
    head = forge.propose({"new": "2"}, again=True)
    assert sweep() == ["refs/pull/7/head"]
    newest = world.runs()[-1]
    assert (newest.event.tip, newest.trust) == (head, "other")
    assert (newest.event.target, newest.event.number, newest.event.author) == ("refs/heads/main", 7, "mallory")
    assert sweep() == []


def test_f10_a_push_to_a_pull_request_of_a_fork_stays_a_forks(forge: Forge, world: World, sweep: Sweep) -> None:
    first = forge.propose({"new": "1"})
    forge.tell(first, fork=True)
    git(forge.repository, "update-ref", "refs/heads/proposal", first)
    forge.propose({"new": "2"}, again=True)
    assert sweep() == ["refs/pull/7/head"]
    assert [run.trust for run in world.runs()] == ["fork", "fork"]


def test_f10_a_pull_request_of_which_nobody_told_is_taken_for_a_forks(forge: Forge, world: World, sweep: Sweep) -> None:
    head = forge.propose({"new": "1"}, number=9)
    assert sweep() == ["refs/pull/9/head"]
    run = world.run()
    assert (run.event.tip, run.event.target) == (head, "refs/heads/main")
    assert (run.trust, run.reason_code) == ("fork", "needs-approval")
    assert sweep() == []


def test_what_was_there_before_the_first_look_is_not_built_and_neither_are_older_ones(
    forge: Forge, world: World
) -> None:
    forge.propose({"old": "1"}, number=30)
    git(forge.repository, "update-ref", "-d", "refs/heads/proposal")
    assert reconcile.reconcile(world.master, forge.project) == []
    forge.propose({"old": "2"}, number=4)  # its ref was hidden until now
    git(forge.repository, "update-ref", "-d", "refs/heads/proposal")
    assert reconcile.reconcile(world.master, forge.project) == []


# --- with a token for the forge's API --------------------------------------------------------------------------------


@pytest.fixture(params=["github", "gitea", "gitlab"])
def served(
    request: pytest.FixtureRequest, forge: Forge, world: World, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ServedForge]:
    """A forge whose API knows the pull requests of the repository, which git reads from the disk."""
    local: Path = forge.repository
    monkeypatch.setattr(world.master.mirrors, "remote", lambda _project: Remote(str(local), allow_local=True))
    with served_forge(request.param) as made:
        repo = "https://git.example.org/team/keepwork.git"
        world.call(lambda tx: projects.change(tx.conn, forge.project.id, forge=made.kind, repo=repo))
        how, project = DesiredApi(token=TOKEN, api=made.api, private=True), world.find_project(forge.project.name)
        world.call(lambda tx: hooking.want(tx, world.master, project, how, world.tick()))
        yield made


def _ref(kind: str, number: int) -> str:
    return f"refs/{'merge-requests' if kind == 'gitlab' else 'pull'}/{number}/head"


def _open(forge: Forge, served: ServedForge, number: int, state: str = "open", fork: bool = False) -> str:
    """Open a pull request that nobody tells of."""
    sha = forge.propose({f"new-{number}": "1"}, number=number)
    if served.kind == "gitlab":
        git(forge.repository, "update-ref", "-d", f"refs/pull/{number}/head")
        git(forge.repository, "update-ref", _ref("gitlab", number), sha)
        ids = {"source_project_id": 6 if fork else 5, "target_project_id": 5, "author": {"username": "ann"}}
        word = "opened" if state == "open" else state
        shown = {"iid": number, "state": word, "sha": sha, "title": "Mend", "target_branch": "main", **ids}
    else:
        head = {"sha": sha, "ref": "proposal", "repo": {"id": 6 if fork else 5}}
        base = {"ref": "main", "repo": {"id": 5}}
        shown = {"number": number, "state": state, "title": "Mend", "head": head, "base": base}
        shown["user"] = {"login": "ann"}
    served.pulls[number] = shown
    return sha


def test_f10_the_forge_is_asked_whose_it_is_and_whether_it_is_open(
    forge: Forge, world: World, served: ServedForge, sweep: Sweep
) -> None:
    head = _open(forge, served, 9)
    _open(forge, served, 10, "closed")
    theirs = _open(forge, served, 11, fork=True)
    assert sweep() == [_ref(served.kind, 9), _ref(served.kind, 11)]
    assert [(run.event.tip, run.trust) for run in world.runs()] == [(head, "other"), (theirs, "fork")]
    assert {(run.event.target, run.message, run.event.author) for run in world.runs()} == {
        ("refs/heads/main", "Mend", "ann")
    }
    calls = len(served.calls)
    assert sweep() == []
    assert len(served.calls) == calls, "each is asked for once"


def test_f10_a_forge_that_does_not_answer_is_asked_again_and_nothing_is_guessed(
    forge: Forge, world: World, served: ServedForge, sweep: Sweep
) -> None:
    _open(forge, served, 9)
    served.refuse = [(503, None)]
    assert sweep() == []
    assert sweep() == [_ref(served.kind, 9)]
    assert world.run().trust == "other"


@pytest.mark.parametrize("answer", [(403, {"message": "Resource not accessible"}), (200, ["odd"]), (200, {"a": 1})])
def test_f10_a_token_that_may_not_read_pull_requests_never_makes_more_of_one_than_a_forks(
    forge: Forge, world: World, served: ServedForge, sweep: Sweep, answer: tuple[int, Any]
) -> None:
    _open(forge, served, 9)
    served.refuse = [answer]
    sweep()
    assert {run.trust for run in world.runs()} <= {"fork"}


# --- closing ---------------------------------------------------------------------------------------------------------


def _close(forge: Forge, world: World, head: str) -> None:
    parsed = Parsed(word="closed", sentence="pull request 7 was closed", closed=forge.event(head))
    name, kind = f"closing-{world.tick()}", "pull_request"
    world.call(
        lambda tx: intake.record(tx, world.master, forge.project, name, "github", kind, {}, b"{}", parsed, world.now)
    )


def test_r06_closing_a_pull_request_ends_what_waits_for_it_with_a_reason(forge: Forge, world: World) -> None:
    head = forge.propose({"new": "x"})
    forge.tell(head, fork=True)
    assert world.run().reason_code == "needs-approval"
    _close(forge, world, head)
    run = world.run()
    assert (run.state, run.reason_code) == (State.CANCELLED, "pull-request-closed")
    assert run.reason == "pull request 7 was closed"
    assert "pull-request-closed" in MEANINGS


def test_r06_closing_leaves_what_is_at_work_alone(forge: Forge, world: World) -> None:
    agent = world.agent()
    head = forge.propose({"new": "x"})
    forge.tell(head)
    [order] = agent.orders()
    agent.report(messages.JobStarted(fence=order.fence, at=1))
    _close(forge, world, head)
    assert world.run().state == State.RUNNING


def test_r06_what_was_told_before_the_closing_starts_nothing_and_the_sweep_finds_nothing(
    forge: Forge, world: World, sweep: Sweep
) -> None:
    head = forge.propose({"new": "x"})
    world.deliver(forge.project, forge.event(head))
    _close(forge, world, head)
    _handle(world, forge)
    assert sweep() == []
    assert world.runs() == []


def test_r06_a_pull_request_that_is_opened_again_is_built(forge: Forge, world: World) -> None:
    head = forge.propose({"new": "x"})
    forge.tell(head)
    _close(forge, world, head)
    forge.tell(head)
    assert [run.state for run in world.runs()] == [State.CANCELLED, State.WAITING]
