"""Retention on a master: files go, rows stay, and whoever looks is told (R77)."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from keepflow.core.retention import Rule
from keepflow.core.states import State
from keepflow.engine import artifacts as files
from keepflow.engine import retention
from keepflow.store import artifacts, deliveries, events, jobs, releases, runs
from keepflow.store.artifacts import NewArtifact
from keepflow.store.tables import metadata
from tests.engine.test_deploy_runs import BUILT
from tests.engine.test_dispatch import flow, push
from tests.engine.world import PlayedAgent, World
from tests.real.waiting import wait_until

STEPS = flow(concurrency="queue")


def _built(world: World, agent: PlayedAgent, number: int, state: str = "succeeded", **more: Any) -> None:
    """Run the job of a run to its end, with a log and an artifact."""
    [order] = agent.orders()
    log = f"log of {number}\n".encode()
    world.master.logs.append(order.fence, 0, log, agent_id=agent.id).result(10)
    data = f"artifact of {number}".encode()
    digest = hashlib.sha256(data).hexdigest()
    with files.Incoming(world.master.home) as incoming:
        incoming.write(data)
        incoming.finish(digest)
    attempt = jobs.attempt_by_fence
    with world.read() as conn:
        held = attempt(conn, order.fence)
    assert held is not None
    world.call(lambda tx: files.record(tx, held, NewArtifact("a", len(data), digest, False, None), world.tick()))
    agent.finish(order, state, log_bytes=len(log), **more)


def _left(world: World) -> set[str]:
    return {
        path.read_text().strip()
        for name in ("logs", "artifacts")
        for path in (world.master.home / name).rglob("*")
        if path.is_file() and not path.name.endswith(".idx")
    }


def test_r77_logs_and_artifacts_of_old_runs_go_and_every_row_stays(world: World) -> None:
    project, repository = world.project()
    agent = world.agent()
    for number, state in enumerate(["succeeded", "failed", "succeeded", "failed", "failed"], 1):
        push(world, project, repository, STEPS)
        _built(world, agent, number, state)
    assert retention.sweep(world.master, world.now) == 0, "without a rule everything is kept"
    world.call(lambda tx: retention.put_rule(tx.conn, Rule(runs=1)))
    assert retention.sweep(world.master, world.now) == 3
    wait_until(lambda: "log of 4" not in _left(world), 10, "the removal of the logs")
    assert _left(world) == {f"{what} of {number}" for what in ("log", "artifact") for number in (3, 5)}
    assert retention.sweep(world.master, world.now) == 0, "a second look finds nothing"
    assert len(world.runs()) == 5
    with world.read() as conn:
        old = runs.by_number(conn, project.id, 2)
        assert old is not None
        [attempt] = jobs.attempts_of_run(conn, old.id)
        [(_, _, kept)] = artifacts.of_run(conn, old.id)
        told = [str(one) for one in events.since(conn, 0, 1000)]
    assert (attempt.log_path, attempt.state) == ("", State.FAILED)
    assert kept.removed_at is not None
    assert any("let-go" in one for one in told)
    logs = world.master.logs
    assert (logs.read("", 0, 10), logs.size(""), logs.length(""), logs.place_of("", 5)) == (b"", 0, 0, 0)


def test_r77_what_is_deployed_keeps_the_runs_it_stands_on(world: World) -> None:
    project, repository = world.project()
    world.environment(project, "dev", ["dev"])
    agent = world.agent(capabilities=("run", "deploy"))
    agent.connect(capabilities=("run", "deploy"))
    text = flow(concurrency="queue", steps="[{run: make}, {deploy: dev}]")
    push(world, project, repository, text)
    _built(world, agent, 1, images=(BUILT,))
    [order] = agent.orders()
    _serve(world, agent, order)
    for number in (2, 3):
        push(world, project, repository, STEPS)
        _built(world, agent, number, "failed")
    world.call(lambda tx: retention.put_rule(tx.conn, Rule(runs=1, days=1)))
    retention.sweep(world.master, world.now + 10 * 86_400_000_000)
    wait_until(lambda: "log of 2" not in _left(world), 10, "the removal of the logs")
    assert {"log of 1", "artifact of 1"} <= _left(world)
    with world.read() as conn:
        assert releases.of_run(conn, world.run(1).id)


def _serve(world: World, agent: PlayedAgent, order: Any) -> None:
    from keepflow.wire import messages

    agent.report(messages.DeployAnswer(fence=order.fence, deployment=order.deployment, at=1, accepted=True))
    agent.report(
        messages.DeployFinished(
            fence=order.fence, deployment=order.deployment, at=2, outcome="done", serving=BUILT.image_id
        )
    )
    assert world.run(1).state is State.SUCCEEDED


def test_the_disk_is_told(world: World, tmp_path: Path) -> None:
    project, repository = world.project()
    push(world, project, repository, STEPS)
    _built(world, world.agent("late"), 1)
    told = retention.storage(world.master)
    assert (told["logs"], told["artifacts"]) == (len("log of 1\n"), len("artifact of 1"))
    assert 0 < told["free"] <= told["total"]
    assert tmp_path.exists()


def test_r77_beyond_the_budget_the_oldest_go_first_and_a_dry_look_removes_nothing(world: World) -> None:
    project, repository = world.project()
    agent = world.agent()
    for number, state in enumerate(["failed", "succeeded", "failed", "failed"], 1):
        push(world, project, repository, STEPS)
        _built(world, agent, number, state)
    each = len("log of 1\n") + len("artifact of 1")
    world.call(lambda tx: retention.put_rule(tx.conn, Rule(budget=2 * each)))
    due = retention.due(world.master, world.now)
    assert [(one.project, one.number, one.bytes) for one in due] == [("keepwork", 1, each), ("keepwork", 3, each)]
    assert len(_left(world)) == 8
    assert retention.sweep(world.master, world.now) == 2
    wait_until(lambda: "log of 3" not in _left(world), 10, "the removal of the logs")
    assert _left(world) == {f"{what} of {number}" for what in ("log", "artifact") for number in (2, 4)}


def test_r77_old_runs_are_forgotten_but_none_that_something_cites(world: World) -> None:
    """Rows that are kept for good keep theirs; so does the last good run, and no number is given twice."""
    project, repository = world.project()
    agent = world.agent()
    for number, (state, more) in enumerate(
        [("failed", {}), ("succeeded", {"images": (BUILT,)}), ("succeeded", {}), ("failed", {})], 1
    ):
        push(world, project, repository, STEPS)
        _built(world, agent, number, state, **more)
    world.call(lambda tx: retention.put_rule(tx.conn, Rule(forget=90)))
    later = world.now + 91 * 86_400_000_000
    with world.read() as conn:
        before = len(events.since(conn, 0, 10_000))
        assert retention.forgettable(conn, later) == {}, "their logs are there still"
    assert retention.sweep(world.master, later) == 3, "the last good run keeps its log"
    assert sorted(run.number for run in world.runs()) == [2, 3]
    with world.read() as conn:
        assert len(events.since(conn, 0, 10_000)) > before, "what was done stays known"
        assert len(deliveries.page(conn, project.id, None, 10)) == 3, "theirs, and the newest of the branch"
    push(world, project, repository, STEPS)
    assert max(run.number for run in world.runs()) == 5


def test_r77_every_table_that_cites_a_run_is_thought_of_when_runs_are_forgotten() -> None:
    """A new one must be deleted with its run, or keep it; else the database refuses."""
    cited = {"runs", "jobs", "attempts", "deliveries"}
    citing = {
        f"{table.name}.{column.name}"
        for table in metadata.tables.values()
        for column in table.columns
        for key in column.foreign_keys
        if key.column.table.name in cited
    }
    deleted = {"steps.attempt_id", "artifacts.attempt_id", "attempts.job_id", "statuses.run_id", "jobs.run_id"}
    cleared, kept_for = {"runs.superseded_by", "runs.rerun_of"}, {"deployments.job_id", "releases.run_id"}
    waited_for = {"workspaces.attempt_id", "workspaces.run_id", "workspace_files.run_id"}
    assert citing == deleted | cleared | kept_for | waited_for | {"runs.delivery_id"}
