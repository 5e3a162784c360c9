"""A million runs is a normal database: nothing the master does all day reads a long table from end to end."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Connection, event

from keepflow.engine import deploying, dispatch, enrol, reconcile
from keepflow.engine.schedule import LOST_AFTER, SILENT_AFTER
from keepflow.store import deliveries, runs
from tests.engine.test_deploy_runs import BOTH, TEXT, _accept, _built, _finish
from tests.engine.test_dispatch import flow, push
from tests.engine.world import World

#: Tables that grow with every push, and never shrink.
LONG = {"deliveries", "runs", "jobs", "attempts", "steps", "releases", "deployments", "outgoing", "events"}


@pytest.fixture
def statements(world: World) -> dict[str, Any]:
    """Every statement that is executed from now on, with one set of its parameters."""
    seen: dict[str, Any] = {}

    def note(_: Connection, __: object, statement: str, parameters: Any, ___: object, ____: object) -> None:
        seen.setdefault(statement, parameters)

    for engine in (world.master.database._writing, world.master.database._reading):  # where all statements pass
        event.listen(engine, "before_cursor_execute", note)
    return seen


def test_no_statement_of_a_day_scans_a_long_table(world: World, statements: dict[str, Any]) -> None:
    project, repository = world.project()
    world.environment(project, "dev", ["dev"])
    reconcile.reconcile(world.master, project)
    agent = world.agent(**BOTH)
    for text in (TEXT, flow("queue"), flow("cancel")):
        push(world, project, repository, text)
        if text is TEXT:
            deploy = _built(agent)
            push(world, project, repository, text)
            _accept(agent, deploy)
            _finish(agent, deploy)
        for order in agent.orders():
            if order.type == "run-job":
                world.master.logs.append(order.fence, 0, b"x", agent_id=agent.id).result(10)
                agent.finish(order)
    push(world, project, repository, flow("queue"))
    world.call(lambda tx: enrol.silent(tx, world.master, world.tick(LOST_AFTER), SILENT_AFTER, LOST_AFTER))
    world.call(lambda tx: deploying.offer_waiting(tx, world.master, world.tick()))
    world.call(lambda tx: dispatch.assign(tx, world.master, world.tick()))
    with world.read() as conn:
        deliveries.page(conn, project.id, 10, 50)
        runs.page(conn, {project.id}, before=10)
        runs.page(conn, before=10)
        runs.by_number(conn, project.id, 1)
        for run in world.runs():
            world.jobs(run.number)
    assert len(statements) > 60
    scans = [found for text, values in list(statements.items()) for found in _scans(world, text, values)]
    assert scans == []


def _scans(world: World, statement: str, parameters: Any) -> list[str]:
    if not statement.startswith(("SELECT", "UPDATE", "DELETE")):
        return []
    with world.master.database.read() as conn:
        plan = conn.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()
    steps = [str(row[-1]) for row in plan]
    bad = [
        step for step in steps if step.startswith("SCAN") and step.split()[1] in LONG and not _is_short(step, statement)
    ]
    return [f"{step}: {statement}" for step in bad]


def _is_short(step: str, statement: str) -> bool:
    """Say whether a scan stops early: along an index of live rows, or in order of the id up to a limit."""
    return "_live" in step or ("LIMIT" in statement and "ORDER BY" in statement and "id DESC" in statement)
