"""Intake works from the table: in order, once, again after trouble, on after a restart (P1, P2, F10, F11)."""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from keepflow import errors
from keepflow.core.events import Parsed
from keepflow.engine import deciding, intake, reconcile
from keepflow.engine.intake import Intake
from keepflow.store import deliveries, events, heads
from tests.engine.world import SCRIPT, World
from tests.real.waiting import wait_until
from tests.tools.repositories import commit, git

PARALLEL = SCRIPT.replace("steps", "concurrency: queue\n    steps")


def _unhandled(world: World) -> list[int]:
    with world.read() as conn:
        return deliveries.projects_waiting(conn)


def _work_off(world: World) -> None:
    """Let intake handle everything there is."""
    worker = Intake(world.master)
    worker.start()
    try:
        wait_until(lambda: not _unhandled(world), 60, "all deliveries are handled")
    finally:
        worker.stop()


def test_p02_ten_thousand_posts_of_a_hundred_deliveries_make_a_hundred_runs(world: World) -> None:
    project, repository = world.project()
    shas = [commit(repository, {".keepflow.yml": PARALLEL, "n": str(n)}, f"c{n}", "dev") for n in range(100)]
    posts = [(f"delivery-{n}", world.pushed(shas[n])) for n in range(100)] * 100
    random.Random(3).shuffle(posts)  # noqa: S311 - an order, not a secret
    worker = Intake(world.master)
    worker.start()

    def post(part: list[object]) -> None:
        for name, event in part:
            world.master.writer.call(
                lambda tx, name=name, event=event: intake.record(
                    tx, world.master, project, name, "github", "push", {}, b"{}", Parsed(event), 1
                )
            )

    threads = [threading.Thread(target=post, args=(posts[n::32],)) for n in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    wait_until(lambda: not _unhandled(world), 120, "all deliveries are handled")
    worker.stop()
    runs = world.runs()
    assert len(runs) == 100
    assert len({run.delivery_id for run in runs}) == 100
    assert {run.sha for run in runs} == set(shas)
    with world.read() as conn:
        assert events.broken_at(conn) is None
        assert heads.get(conn, project.id, "refs/heads/dev") == shas[-1]


def test_p01_a_restart_goes_on_with_what_was_not_handled_in_order(world: World) -> None:
    project, repository = world.project()
    shas = [world.push(project, repository, {".keepflow.yml": PARALLEL, "n": str(n)}) for n in range(3)]
    for sha in shas:
        world.deliver(project, world.pushed(sha))
    world.close()
    world.__init__(world.home)  # type: ignore[misc]  # the same home, a new process's objects
    _work_off(world)
    assert [run.sha for run in world.runs()] == shas


def test_f10_a_remote_that_is_away_is_asked_again_and_the_delivery_says_so(world: World) -> None:
    project, repository = world.project()
    sha = world.push(project, repository, {".keepflow.yml": SCRIPT})
    away = repository.rename(repository.with_name("away"))
    worker = Intake(world.master)
    worker.start()
    delivery_id = world.deliver(project, world.pushed(sha))
    wait_until(lambda: world.delivery(delivery_id).decision, 30, "the delivery says what it waits for")
    decision = world.delivery(delivery_id).decision
    assert decision is not None
    assert decision["sentence"].startswith("waiting: cannot fetch refs/heads/dev: ")
    assert not world.delivery(delivery_id).handled
    away.rename(repository)
    world.master.wakes.fire("projects")
    wait_until(lambda: world.delivery(delivery_id).handled, 30, "the delivery is handled")
    worker.stop()
    assert len(world.runs()) == 1


def test_a_slow_project_does_not_hold_up_another(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    slow, slow_repository = world.project("slow")
    quick, quick_repository = world.project("quick")
    real, held, entered = intake.handle, threading.Event(), threading.Event()
    first = world.deliver(slow, world.pushed(world.push(slow, slow_repository, {".keepflow.yml": SCRIPT})))

    def handle(master: object, ids: Sequence[int], now: int) -> object:
        if first in ids:
            entered.set()
            held.wait(60)
        return real(master, ids, now)  # type: ignore[arg-type]  # passed through as it came

    monkeypatch.setattr(intake, "handle", handle)
    worker = Intake(world.master)
    worker.start()
    entered.wait(30)
    second = world.deliver(quick, world.pushed(world.push(quick, quick_repository, {".keepflow.yml": SCRIPT})))
    wait_until(lambda: world.delivery(second).handled, 30, "the quick project is handled")
    assert not world.delivery(first).handled
    held.set()
    wait_until(lambda: world.delivery(first).handled, 30, "the slow project is handled")
    worker.stop()


def test_f25_a_delivery_on_which_keepflow_itself_fails_is_given_up_in_words(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, repository = world.project()
    before = world.deliver(project, world.pushed(world.push(project, repository, {".keepflow.yml": SCRIPT})))
    poison = world.deliver(project, world.pushed(world.push(project, repository)))
    good = world.deliver(project, world.pushed(world.push(project, repository)))
    real = intake.handle

    def handle(master: object, ids: Sequence[int], now: int) -> object:
        if poison in ids:
            raise ZeroDivisionError("a bug")
        return real(master, ids, now)  # type: ignore[arg-type]  # passed through as it came

    monkeypatch.setattr(intake, "handle", handle)
    monkeypatch.setattr(intake, "_FIRST_WAIT", 0.01)
    _work_off(world)
    decision = world.delivery(poison).decision
    assert decision is not None
    assert "keepflow failed" in decision["sentence"]
    assert [run.delivery_id for run in world.runs()] == [before, good]


def test_headers_that_prove_the_sender_are_not_stored(world: World) -> None:
    project, _ = world.project()
    headers = {"x-github-event": "push", "x-hub-signature-256": "sha256=1", "x-gitlab-token": "t", "cookie": "c"}
    recorded = world.call(
        lambda tx: intake.record(
            tx, world.master, project, "d", "github", "push", headers, b"{}", Parsed(word="ping", sentence="pong"), 1
        )
    )
    assert world.delivery(recorded.id).headers == {"x-github-event": "push"}
    assert recorded.handled
    assert world.delivery(recorded.id).decision == {"sentence": "pong", "runs": [], "not": {}}


def test_r08_a_repeated_delivery_names_the_first_one_and_its_decision(world: World) -> None:
    project, repository = world.project()
    event = world.pushed(world.push(project, repository, {".keepflow.yml": SCRIPT}))
    first = world.handle(world.deliver(project, event, "d1"))
    again = world.call(
        lambda tx: intake.record(tx, world.master, project, "d1", "github", "push", {}, b"x", Parsed(event), 9)
    )
    assert (again.id, again.first, again.handled, again.parsed.event) == (first.id, False, True, event)
    assert again.decision == first.decision


# --- the sweep -------------------------------------------------------------------------------------------------------


def test_f10_the_sweep_finds_what_lost_hooks_missed_and_shows_it_in_the_ledger(world: World) -> None:
    project, repository = world.project()
    world.push(project, repository, {".keepflow.yml": SCRIPT})
    assert reconcile.reconcile(world.master, project) == []
    _work_off(world)
    assert world.runs() == [], "what was there before is not built"
    sha = world.push(project, repository, message="missed")
    new = world.push(project, repository, {".keepflow.yml": SCRIPT.replace("push: dev", "push: 'new'")}, branch="new")
    assert sorted(reconcile.reconcile(world.master, project)) == ["refs/heads/dev", "refs/heads/new"]
    _work_off(world)
    assert {run.sha for run in world.runs()} == {sha, new}
    assert next(run for run in world.runs() if run.sha == sha).message == "missed"
    assert reconcile.reconcile(world.master, project) == []
    with world.read() as conn:
        assert {found.forge for found in deliveries.page(conn, project.id, None, 10)} == {deciding.SWEEP}


def test_f11_a_hook_that_comes_after_the_sweep_makes_no_second_run_and_one_before_it_neither(world: World) -> None:
    project, repository = world.project()
    first = world.push(project, repository, {".keepflow.yml": SCRIPT})
    reconcile.reconcile(world.master, project)
    missed = world.push(project, repository)
    reconcile.reconcile(world.master, project)
    _work_off(world)
    late = world.send(project, world.pushed(missed, before=first))
    assert len(world.runs()) == 1
    assert late.decision is not None
    assert late.decision["runs"][0]["run"] == 1
    # the sweep looked at the remote before the hook of the next push was handled
    told = world.push(project, repository)
    reconcile.reconcile(world.master, project)
    with world.read() as conn:
        [swept] = [found for found in deliveries.page(conn, project.id, None, 10) if not found.handled]
    hook = world.deliver(project, world.pushed(told, before=missed))
    world.handle(hook)
    world.handle(swept.id)
    assert [run.sha for run in world.runs()] == [missed, told]


def test_a_deleted_branch_that_comes_back_at_the_same_commit_is_swept_again(world: World) -> None:
    project, repository = world.project()
    sha = world.push(project, repository, {".keepflow.yml": SCRIPT})
    world.send(project, world.pushed(sha))
    reconcile.reconcile(world.master, project)
    git(repository, "update-ref", "-d", "refs/heads/dev")
    git(repository, "update-ref", "refs/heads/other", sha)
    reconcile.reconcile(world.master, project)
    _work_off(world)
    git(repository, "update-ref", "refs/heads/dev", sha)
    assert reconcile.reconcile(world.master, project) == ["refs/heads/dev"]
    _work_off(world)
    assert [run.sha for run in world.runs()] == [sha, sha]


def test_the_sweep_stays_out_of_the_way_while_deliveries_wait(world: World) -> None:
    project, repository = world.project()
    reconcile.reconcile(world.master, project)
    world.deliver(project, world.pushed(world.push(project, repository, {".keepflow.yml": SCRIPT})))
    assert reconcile.reconcile(world.master, project) == []


def test_a_branch_in_the_place_of_a_removed_one_is_fetched(world: World) -> None:
    project, repository = world.project()
    text = SCRIPT.replace("push: dev", "push: '**'")
    sha = world.push(project, repository, {".keepflow.yml": text}, branch="a")
    world.send(project, world.pushed(sha, "a"))
    git(repository, "update-ref", "-d", "refs/heads/a")
    git(repository, "update-ref", "refs/heads/a/b", sha)
    world.send(project, world.pushed(sha, "a/b"))
    assert [run.ref for run in world.runs()] == ["refs/heads/a", "refs/heads/a/b"]


def test_the_sweep_goes_on_past_a_remote_that_is_away(world: World) -> None:
    away, away_repository = world.project("away")
    project, repository = world.project("here")
    for each in (away, project):
        reconcile.reconcile(world.master, each)
    away_repository.rename(Path(f"{away_repository}.gone"))
    sha = world.push(project, repository, {".keepflow.yml": SCRIPT})
    reconcile.sweep(world.master)
    _work_off(world)
    assert [run.sha for run in world.runs()] == [sha]
    with pytest.raises(errors.CommandFailed):
        reconcile.reconcile(world.master, away)
