"""The engine on PostgreSQL: the same story as on SQLite, and connections that break."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from keepflow import errors
from keepflow.core.states import State
from keepflow.engine import deciding
from keepflow.store import counters, deliveries, events
from keepflow.wire import messages
from tests.engine.test_dispatch import flow, push
from tests.engine.test_notifying import Building, to_a_program
from tests.engine.world import SCRIPT, World
from tests.notified import http_server
from tests.store.clusters import cluster, fresh_database

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def sockets() -> Iterator[str]:
    """The socket directory of a private PostgreSQL."""
    with cluster() as found:
        yield found


@pytest.fixture
def world(sockets: str, tmp_path: Path) -> Iterator[World]:
    """A master on PostgreSQL."""
    with fresh_database(sockets, tmp_path.name) as url:
        made = World(tmp_path, url)
        yield made
        made.close()


def test_a_push_becomes_a_run_that_an_agent_finishes(world: World) -> None:
    project, repository = world.project()
    world.environment(project, "dev", ["dev"])
    agent = world.agent()
    for number in (1, 2):
        push(world, project, repository, flow("latest"))
        [order] = agent.orders()
        agent.report(messages.JobStarted(fence=order.fence, at=1))
        agent.report(messages.StepStarted(fence=order.fence, index=0, name="make", at=1, offset=0))
        world.master.logs.append(order.fence, 0, b"hello\n", agent_id=agent.id).result(10)
        agent.report(messages.StepFinished(fence=order.fence, index=0, at=2, exit_code=0, offset=6))
        agent.report(messages.JobFinished(fence=order.fence, at=3, state="succeeded", log_bytes=6))
        assert world.run(number).state is State.SUCCEEDED
    with world.read() as conn:
        assert events.broken_at(conn) is None


def test_f15_a_connection_that_breaks_loses_nothing_acknowledged_and_the_next_one_works(
    world: World, sockets: str, tmp_path: Path
) -> None:
    acknowledged = 0
    for _ in range(20):
        with psycopg.connect(host=sockets, user="postgres", dbname="postgres", autocommit=True) as admin:
            admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [tmp_path.name])
        try:
            acknowledged = world.call(lambda tx: counters.next_value(tx.conn, "n"))
        except errors.Unavailable as error:
            assert error.code == "database"  # noqa: PT017 - not every break is noticed by a closure
        acknowledged = max(acknowledged, world.call(lambda tx: counters.next_value(tx.conn, "n")))
    assert acknowledged >= 20
    assert world.call(lambda tx: counters.next_value(tx.conn, "n")) == acknowledged + 1


def test_deliveries_that_come_together_are_decided_together(world: World) -> None:
    project, repository = world.project()
    text = SCRIPT.replace("steps", "concurrency: latest\n    steps")
    shas = [world.push(project, repository, {".keepflow.yml": text, "n": str(n)}) for n in range(3)]
    ids = [world.deliver(project, world.pushed(sha)) for sha in shas]
    with world.read() as conn:
        assert deliveries.refs_waiting(conn, project.id) == ["refs/heads/dev"]
        assert deliveries.unhandled_ids(conn, project.id, "refs/heads/dev", 9) == ids
    assert deciding.handle(world.master, ids, world.tick()) is None
    runs = world.runs()
    assert [(run.sha, run.state) for run in runs] == [
        (shas[0], State.SUPERSEDED),
        (shas[1], State.SUPERSEDED),
        (shas[2], State.WAITING),
    ]
    assert [run.superseded_by for run in runs] == [runs[2].id, runs[2].id, None]
    assert all(world.delivery(one).handled for one in ids)
    with world.read() as conn:
        assert events.broken_at(conn) is None


def test_notices_are_made_once_sent_and_put_off(world: World) -> None:
    with http_server() as ear:
        building = Building(world, ops=to_a_program(ear))
        building.run("failed")
        assert building.collect() == building.collect()
        ear.answers = [(500, {}), (200, {})]
        building.send()
        [waiting] = building.all()
        assert (waiting.state, waiting.tries) == ("waiting", 1)
        world.tick(11 * 1_000_000)
        building.send()
        [sent] = building.all()
        assert (sent.state, sent.delivery, len(ear.heard)) == ("sent", waiting.delivery, 2)
