"""A delivery once more: for a person, under its own name, and never back to older code."""

from __future__ import annotations

import json

import pytest

from keepflow import errors
from keepflow.core.events import Parsed
from keepflow.core.states import State
from keepflow.engine import intake, reconcile, replaying
from keepflow.store import deliveries, events
from keepflow.store.projects import Project
from tests.engine.world import SCRIPT, World
from tests.forges.deliveries import delivery, headers


def _replay(world: World, project: Project, delivery_id: int, by: str = "ann") -> int:
    now = world.tick()
    made = world.call(lambda tx: replaying.replay(tx, world.master, project, delivery_id, by, now))
    world.handle(made)
    return int(made)


def test_a_delivery_once_more_is_a_delivery_of_its_own_and_a_new_run(world: World) -> None:
    project, repository = world.project()
    sha = world.push(project, repository, {".keepflow.yml": SCRIPT})
    first = world.send(project, world.pushed(sha))
    made = world.delivery(_replay(world, project, first.id))
    assert (made.forge, made.event, made.event_name) == ("replay", first.event, "push")
    assert [run.sha for run in world.runs()] == [sha, sha]
    assert made.decision is not None
    assert made.decision["runs"][0]["run"] == 2
    with world.read() as conn:
        [told] = [event for event in events.since(conn, 0, 100) if event.kind == "delivery-replayed"]
    assert (told.actor, told.data) == ("ann", {"delivery": first.id, "as": made.id})


def test_a_replay_of_what_the_sweep_found_runs_again(world: World) -> None:
    project, repository = world.project()
    world.push(project, repository, {".keepflow.yml": SCRIPT})
    reconcile.reconcile(world.master, project)
    sha = world.push(project, repository)
    reconcile.reconcile(world.master, project)
    with world.read() as conn:
        [swept] = deliveries.page(conn, project.id, None, 9)
    world.handle(swept.id)
    _replay(world, project, swept.id)
    assert [run.sha for run in world.runs()] == [sha, sha]


def test_p03_a_replay_never_brings_old_code_back(world: World) -> None:
    project, repository = world.project()
    old = world.send(project, world.pushed(world.push(project, repository, {".keepflow.yml": SCRIPT})))
    world.send(project, world.pushed(world.push(project, repository)))
    _replay(world, project, old.id)
    assert world.run(3).state is State.SUPERSEDED


def test_what_its_forge_sent_is_read_again(world: World) -> None:
    """A version that reads more than the one before makes something of what that one ignored."""
    project, repository = world.project()
    sha = world.push(project, repository, {".keepflow.yml": SCRIPT})
    sent, body = delivery("push", after=sha, head_commit={"id": sha, "message": "m"}, before=None)
    ignored = Parsed(word="unknown-event", sentence="events of this kind start nothing")
    recorded = world.call(
        lambda tx: intake.record(tx, world.master, project, "d", "github", "push", sent, body, ignored, world.tick())
    )
    _replay(world, project, recorded.id)
    assert [run.sha for run in world.runs()] == [sha]


def test_what_starts_nothing_and_what_is_not_there_cannot_be_replayed(world: World) -> None:
    project, _ = world.project()
    other, _ = world.project("other")
    body = json.dumps({"zen": "x"}).encode()
    ping = world.call(
        lambda tx: intake.record(
            tx, world.master, project, "d", "github", "ping", headers("ping", body), body, Parsed(word="ping"), 1
        )
    )
    with pytest.raises(errors.UsageError):
        _replay(world, project, ping.id)
    with pytest.raises(errors.NotFound):
        _replay(world, other, ping.id)
    with pytest.raises(errors.NotFound):
        _replay(world, project, 99)
