"""Deliveries decided together: each with its own decision, for the price of one fetch and one commit (F26, P3)."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from keepflow.core.events import Event, Parsed
from keepflow.core.states import State
from keepflow.engine import deciding, intake, reconcile
from keepflow.engine.intake import Call, Intake
from keepflow.engine.mirrors import Mirrors
from keepflow.store import deliveries, events, heads
from keepflow.store.projects import Project
from tests.engine.world import SCRIPT, World
from tests.real.waiting import wait_until
from tests.tools.repositories import commit, git

QUEUED = SCRIPT.replace("steps", "concurrency: queue\n    steps")
EVERY = SCRIPT.replace("push: dev", "push: '**'")
LATEST = EVERY.replace("steps", "concurrency: latest\n    steps")


def _deliver_all(world: World, project: Project, told: Sequence[Event]) -> list[int]:
    """Store deliveries as the gateway does under load, and return their row ids."""
    calls = [
        Call(project, f"storm-{number}", "github", "push", {}, b"{}", Parsed(event), world.tick())
        for number, event in enumerate(told)
    ]
    groups = [calls[start : start + 250] for start in range(0, len(calls), 250)]
    stored = [world.call(lambda tx, group=group: intake.record_all(tx, world.master, group)) for group in groups]
    return [one.id for group in stored for one in group]


def _handle(world: World, ids: Sequence[int]) -> int:
    """Handle batch after batch until nothing is left, and return how many it took."""
    batches = 0
    while _left(world, ids):
        assert deciding.handle(world.master, ids, world.tick()) is None
        batches += 1
    return batches


def _left(world: World, ids: Sequence[int]) -> int:
    with world.read() as conn:
        return len(deliveries.unhandled_among(conn, ids))


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The refs that were fetched from remotes."""
    found: list[str] = []
    real = Mirrors.fetch

    def fetch(mirrors: Mirrors, project: Project, ref: str) -> object:
        found.append(ref)
        return real(mirrors, project, ref)

    monkeypatch.setattr(Mirrors, "fetch", fetch)
    return found


def test_f26_a_push_beside_five_thousand_deliveries_of_another_branch_waits_for_a_batch_or_two(
    world: World, monkeypatch: pytest.MonkeyPatch, fetched: list[str]
) -> None:
    project, repository = world.project()
    storm = world.push(project, repository, {".keepflow.yml": LATEST}, branch="storm")
    single = world.push(project, repository, {".keepflow.yml": LATEST}, branch="single")
    ids = _deliver_all(world, project, [*[world.pushed(storm, "storm")] * 5000, world.pushed(single, "single")])
    decided: list[bool] = []
    real = deciding.handle

    def handle(*arguments: object) -> object:
        stuck = real(*arguments)  # type: ignore[arg-type]  # passed through as it came
        decided.append(world.delivery(ids[-1]).handled)
        return stuck

    monkeypatch.setattr(intake, "handle", handle)
    worker = Intake(world.master)
    worker.start()
    try:
        wait_until(lambda: not _left(world, ids), 120, "every delivery is decided")
    finally:
        worker.stop()
    assert decided[0], "the single push is in the first batch"
    assert len(decided) <= 5000 / 256 + 1
    assert len(fetched) <= len(decided) + 1
    runs = world.runs()
    assert len(runs) == 5001
    assert {run.ref for run in runs if run.state == State.WAITING} == {"refs/heads/storm", "refs/heads/single"}
    superseded = [run for run in runs if run.state == State.SUPERSEDED]
    assert len(superseded) == 4999
    assert all(run.superseded_by for run in superseded)


def test_each_of_a_batch_has_a_decision_and_a_run_of_its_own_and_only_the_last_one_begins(
    world: World, fetched: list[str]
) -> None:
    project, repository = world.project()
    shas = [world.push(project, repository, {".keepflow.yml": LATEST, "n": str(n)}) for n in range(3)]
    ids = _deliver_all(world, project, [world.pushed(sha) for sha in shas])
    assert _handle(world, ids) == 1
    assert fetched == ["refs/heads/dev"]
    runs = world.runs()
    assert [(run.number, run.sha, run.delivery_id) for run in runs] == [
        (number, sha, delivery) for number, (sha, delivery) in enumerate(zip(shas, ids, strict=True), 1)
    ]
    assert [run.state for run in runs] == [State.SUPERSEDED, State.SUPERSEDED, State.WAITING]
    assert [run.superseded_by for run in runs] == [runs[2].id, runs[2].id, None]
    assert runs[0].reason == "superseded by keepwork#3, a newer run of dev on refs/heads/dev"
    for number, delivery in enumerate(ids, 1):
        decision = world.delivery(delivery).decision
        assert decision is not None
        assert [run["run"] for run in decision["runs"]] == [number]
        assert decision["sentence"].startswith(f"#{number} dev (")
    with world.read() as conn:
        assert heads.get(conn, project.id, "refs/heads/dev") == shas[2]
        assert events.broken_at(conn) is None
        made = [event.run_id for event in events.since(conn, 0, 100) if event.kind == "run-created"]
    assert made == [run.id for run in runs]
    assert world.find_project("keepwork").next_number == 4


def test_a_batch_decides_as_one_by_one_would(world: World) -> None:
    project, repository = world.project()
    old = world.push(project, repository, {".keepflow.yml": SCRIPT})
    new = world.push(project, repository)
    newest = world.push(project, repository)
    told = [
        world.pushed("a" * 40),  # was never there
        world.pushed(new, before=old),
        world.pushed(old),  # came too late
        world.pushed(newest, before=new, message="docs [skip ci]"),
    ]
    ids = _deliver_all(world, project, told)
    assert _handle(world, ids) == 1
    gone, *others = [world.delivery(one).decision or {} for one in ids]
    assert "was rewritten" in gone["sentence"]
    assert [[run["run"] for run in decision["runs"]] for decision in others] == [[1], [2], [3]]
    runs = world.runs()
    assert [(run.sha, run.state) for run in runs] == [
        (new, State.WAITING),
        (old, State.SUPERSEDED),
        (newest, State.SKIPPED),
    ]
    assert "superseded by keepwork#1: " in runs[1].reason
    assert runs[1].superseded_by == runs[0].id
    with world.read() as conn:
        assert heads.get(conn, project.id, "refs/heads/dev") == newest


def test_runs_that_all_begin_are_made_a_few_at_a_time_and_in_order(world: World) -> None:
    project, repository = world.project()
    shas = [commit(repository, {".keepflow.yml": QUEUED, "n": str(n)}, f"c{n}", "dev") for n in range(20)]
    ids = _deliver_all(world, project, [world.pushed(sha) for sha in shas])
    assert _handle(world, ids) == 2
    assert [run.sha for run in world.runs()] == shas
    assert State.SUPERSEDED not in world.states()


def test_the_oldest_delivery_is_in_every_batch_and_the_branches_with_the_fewest_beside_it(world: World) -> None:
    project, repository = world.project()
    sha = world.push(project, repository, {".keepflow.yml": EVERY}, branch="storm")
    for number in range(6):
        git(repository, "update-ref", f"refs/heads/b{number}", sha)
    told = [world.pushed(sha, "storm")] * 9 + [world.pushed(sha, f"b{number}") for number in range(6)]
    ids = _deliver_all(world, project, [*told, world.pushed(sha, "b0")])
    with world.read() as conn:
        refs = deliveries.refs_waiting(conn, project.id)
    assert [ref.removeprefix("refs/heads/") for ref in refs] == ["storm", "b1", "b2", "b3", "b4", "b5", "b0"]
    _handle(world, ids)
    assert [run.ref.removeprefix("refs/heads/") for run in world.runs()] == [
        *("b1", "b2", "b3", "b4", "b5"),
        *("b0", "b0"),
        *["storm"] * 9,
    ]


def test_f11_a_sweep_and_the_late_hook_of_the_same_push_make_one_run_in_one_batch(world: World) -> None:
    project, repository = world.project()
    first = world.push(project, repository, {".keepflow.yml": SCRIPT})
    reconcile.reconcile(world.master, project)
    missed = world.push(project, repository)
    reconcile.reconcile(world.master, project)
    world.deliver(project, world.pushed(missed, before=first))
    with world.read() as conn:
        ids = deliveries.unhandled_ids(conn, project.id, "refs/heads/dev", 10)
    assert len(ids) == 2
    assert _handle(world, ids) == 2
    assert [run.sha for run in world.runs()] == [missed]
    late = world.delivery(ids[1]).decision
    assert late is not None
    assert [run["run"] for run in late["runs"]] == [1]
