"""Commit statuses: every forge is told in its own way, from the outbox, until it took it (R66)."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from keepflow.core.events import Event, EventKind
from keepflow.core.states import State
from keepflow.engine import apply as applying
from keepflow.engine import commands, statuses
from keepflow.engine.statuses import StatusSender
from keepflow.store import projects
from keepflow.store import statuses as stored
from keepflow.store.projects import Project
from keepflow.wire.desired import Desired, DesiredApi
from tests.engine.world import SCRIPT, PlayedAgent, World
from tests.real.waiting import wait_until
from tests.tools.repositories import git

TOKEN = "a-token-nobody-may-see"


class Forge:
    """A small HTTP server that writes down what it is told, and answers what the test wants."""

    def __init__(self) -> None:
        self.told: list[tuple[str, dict[str, str], dict[str, str]]] = []
        self.answers: list[int] = []  #: what is answered next; 201 when there is nothing
        forge = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                forge.told.append((self.path, headers, json.loads(body)))
                self.send_response(forge.answers.pop(0) if forge.answers else 201)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.api = f"http://127.0.0.1:{self._server.server_port}/api"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def close(self) -> None:
        """Stop."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def words(self) -> list[str]:
        """The states that it was told, in order."""
        return [body["state"] for _, _, body in self.told]


@pytest.fixture
def forge() -> Iterator[Forge]:
    made = Forge()
    yield made
    made.close()


def told_by(world: World, forge: Forge, kind: str = "github", **how: Any) -> tuple[Project, Any, PlayedAgent]:
    """Add a project whose forge is told, with an agent that waits for work."""
    project, repository = world.project()
    wanted = DesiredApi(token=TOKEN, api=forge.api, private=True).model_copy(update=how)

    def put(tx: Any) -> None:
        row = statuses.sealed(tx.conn, world.master.vault, project.name, wanted)
        projects.change(tx.conn, project.id, forge=kind, status=row)

    world.call(put)
    statuses.collect(world.master, world.now)
    return world.find_project(project.name), repository, world.agent()


def move(world: World, repo: str) -> None:
    """Have every repository somewhere else; their commits are in the mirror."""
    world.call(lambda tx: [projects.change(tx.conn, one.id, repo=repo) for one in projects.every(tx.conn)])


def tell(world: World, at: int | None = None) -> None:
    """Let everything that is due be told, with the repositories at a forge meanwhile."""
    with world.read() as conn:
        homes = {one.id: one.repo for one in projects.every(conn)}
    move(world, "https://git.example.org/team/keepwork.git")
    while statuses.collect(world.master, world.tick()):
        pass
    statuses.tell_due(world.master, at or world.tick())
    world.call(lambda tx: [projects.change(tx.conn, key, repo=repo) for key, repo in homes.items()])


LATER = 2**62


@pytest.mark.parametrize(
    ("kind", "path", "header", "value", "names"),
    [
        ("github", "/api/repos/{name}/statuses/{sha}", "authorization", f"Bearer {TOKEN}", ("context", "success")),
        ("gitea", "/api/repos/{name}/statuses/{sha}", "authorization", f"token {TOKEN}", ("context", "success")),
        ("gitlab", "/api/projects/{coded}/statuses/{sha}", "private-token", TOKEN, ("name", "success")),
    ],
)
def test_r66_pending_and_then_success_with_context_and_link(
    world: World, forge: Forge, kind: str, path: str, header: str, value: str, names: tuple[str, str]
) -> None:
    project, repository, agent = told_by(world, forge, kind)
    sha = world.push(project, repository, {".keepflow.yml": SCRIPT})
    world.send(project, world.pushed(sha))
    tell(world)
    [order] = agent.orders()
    agent.finish(order)
    tell(world)
    assert forge.words == ["pending", names[1]]
    name = "team/keepwork"
    where = path.format(name=name, coded=name.replace("/", "%2F"), sha=sha)
    for told_path, headers, body in forge.told:
        assert (told_path, headers[header], headers["content-type"]) == (where, value, "application/json")
        assert body[names[0]] == "keepflow/dev"
        assert body["target_url"] == "http://127.0.0.1:8080/projects/keepwork/runs/1"
        assert len(body["description"]) <= 140


@pytest.mark.parametrize(("kind", "word"), [("github", "failure"), ("gitea", "failure"), ("gitlab", "failed")])
def test_r66_a_failed_script_is_a_failure_with_its_reason(world: World, forge: Forge, kind: str, word: str) -> None:
    project, repository, agent = told_by(world, forge, kind)
    world.send(project, world.pushed(world.push(project, repository, {".keepflow.yml": SCRIPT})))
    [order] = agent.orders()
    agent.finish(order, "failed", code="exit", sentence="step make ended with exit code 2")
    tell(world)
    assert forge.words == [word]
    assert "exit code 2" in forge.told[0][2]["description"]


def test_r66_what_came_to_no_end_of_its_own_is_an_error_and_what_was_skipped_is_none(
    world: World, forge: Forge
) -> None:
    project, repository, _ = told_by(world, forge)
    skipped = world.push(project, repository, {".keepflow.yml": SCRIPT}, message="docs [skip ci]")
    world.send(project, world.pushed(skipped))
    cancelled = world.push(project, repository)
    world.send(project, world.pushed(cancelled))
    world.call(lambda tx: commands.cancel_run(tx, world.master, world.run(2).id, "ann", world.tick()))
    without = world.push(project, repository, {".keepflow.yml": None})
    world.send(project, world.pushed(without))
    tell(world)
    told = {path.rpartition("/")[2]: (body["state"], body["context"]) for path, _, body in forge.told}
    assert told == {
        skipped: ("success", "keepflow/dev"),
        cancelled: ("error", "keepflow/dev"),
        without: ("error", "keepflow"),
    }


def test_r66_a_pull_request_is_told_at_its_own_commit_and_not_at_the_merge(world: World, forge: Forge) -> None:
    project, repository, _ = told_by(world, forge)
    flow = SCRIPT.replace("push: dev", "pull_request: true")
    world.push(project, repository, {".keepflow.yml": flow}, branch="main")
    git(repository, "update-ref", "refs/heads/topic", git(repository, "rev-parse", "refs/heads/main"))
    head = world.push(project, repository, {"a": "1"}, branch="topic")
    world.push(project, repository, {"b": "1"}, branch="main")
    git(repository, "update-ref", "refs/pull/7/head", head)
    event = Event(EventKind.PULL_REQUEST, "refs/pull/7/head", head, target="refs/heads/main", number=7)
    world.send(project, event)
    tell(world)
    assert world.run().sha != head
    assert forge.told[0][0].endswith(f"/statuses/{head}")


def test_r66_a_forge_that_is_away_is_asked_again_and_hears_the_newest_word_only(world: World, forge: Forge) -> None:
    project, repository, agent = told_by(world, forge)
    forge.answers = [500, 503]
    world.send(project, world.pushed(world.push(project, repository, {".keepflow.yml": SCRIPT})))
    tell(world)
    with world.read() as conn:
        waiting = stored.of_run(conn, world.run().id)
    assert waiting is not None
    assert (waiting.told, waiting.tries, waiting.said) == ("", 1, "127.0.0.1 answered 500")
    tell(world)
    assert len(forge.told) == 1, "not before its time"
    [order] = agent.orders()
    agent.finish(order)
    tell(world)
    assert forge.words == ["pending", "success"]
    tell(world, LATER)
    assert forge.words == ["pending", "success", "success"]
    with world.read() as conn:
        done = stored.of_run(conn, world.run().id)
    assert done is not None
    assert (done.told, done.next_at) == ("success", None)
    assert world.run().state is State.SUCCEEDED


def test_r66_a_forge_that_never_takes_it_is_given_up_and_no_run_changes(world: World, forge: Forge) -> None:
    project, repository, agent = told_by(world, forge)
    forge.answers = [403] * 50
    world.send(project, world.pushed(world.push(project, repository, {".keepflow.yml": SCRIPT})))
    [order] = agent.orders()
    agent.finish(order)
    tell(world)
    for _ in range(20):
        tell(world, LATER)
    with world.read() as conn:
        given_up = stored.of_run(conn, world.run().id)
    assert given_up is not None
    assert (given_up.told, given_up.next_at, given_up.said) == ("", None, "given up: 127.0.0.1 answered 403")
    assert len(forge.told) == 9
    assert world.run().state is State.SUCCEEDED


def test_a_project_that_is_not_told_and_what_was_before_are_not_told(world: World, forge: Forge) -> None:
    silent, silent_repository = world.project("silent")
    world.send(silent, world.pushed(world.push(silent, silent_repository, {".keepflow.yml": SCRIPT})))
    tell(world)
    told_by(world, forge)
    world.send(silent, world.pushed(world.push(silent, silent_repository)))
    tell(world)
    assert forge.told == []


def test_a_restart_goes_on_and_a_process_of_its_own_tells(world: World, forge: Forge) -> None:
    project, repository, _ = told_by(world, forge)
    world.send(project, world.pushed(world.push(project, repository, {".keepflow.yml": SCRIPT})))
    move(world, "https://git.example.org/team/keepwork.git")
    sender = StatusSender(world.master)
    sender.start()
    try:
        wait_until(lambda: forge.words == ["pending"], 30, "the forge is told")
    finally:
        sender.stop(10)


def test_http_and_private_addresses_are_asked_only_when_that_is_allowed(world: World, forge: Forge) -> None:
    project, repository, _ = told_by(world, forge, private=False)
    world.send(project, world.pushed(world.push(project, repository, {".keepflow.yml": SCRIPT})))
    tell(world)
    with world.read() as conn:
        refused = stored.of_run(conn, world.run().id)
    assert refused is not None
    assert "https only" in refused.said
    assert forge.told == []


def test_a_file_that_is_applied_again_changes_nothing_and_another_token_is_not_shown(world: World) -> None:
    project = {"repo": "https://git.example.org/team/shop.git", "forge": "gitea", "flow_file": ".keepflow.yml"}

    def wanted(token: str) -> Desired:
        return Desired.model_validate({"projects": {"shop": {**project, "status": {"token": token}}}})

    def plan(token: str) -> list[str]:
        with world.read() as conn:
            return [f"{line.what}: {line.detail}" for line in applying.plan(conn, world.master, wanted(token))]

    world.call(lambda tx: applying.apply(tx, world.master, wanted(TOKEN), "root", 1))
    assert plan(TOKEN) == []
    assert plan("another-token") == ["project shop: status is new"]
    since = world.find_project("shop").status
    world.call(lambda tx: applying.apply(tx, world.master, wanted("another-token"), "root", 1))
    again = world.find_project("shop").status
    assert since is not None
    assert again is not None
    assert again["since"] == since["since"]


def test_the_token_is_sealed_and_shown_by_nothing(world: World, forge: Forge) -> None:
    project, _, _ = told_by(world, forge)
    assert project.status is not None
    assert TOKEN not in json.dumps(project.status)
    assert TOKEN not in repr(project)
    assert TOKEN not in repr(statuses.opened(world.master.vault, project))
