"""Reports that come together are written down together, and make of everything what they make one by one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event as sa_event

from keepflow.core.states import State
from keepflow.engine import reports
from keepflow.store import events, jobs, outgoing, steps
from keepflow.wire import messages
from tests.engine.world import World

_JOBS = 8
FLOW = """
version: 1
flows:
  dev:
    on: {push: dev}
    jobs:
      one:
        matrix: {axes: {n: [%s]}}
        steps: [{run: make}, {run: make test}]
"""


def _begin(world: World, count: int = _JOBS, slots: int = 4) -> tuple[Any, list[messages.RunJob]]:
    """Start a run of so many jobs that are all ready; return its agent and the orders it got at once."""
    project, repository = world.project()
    agent = world.agent(slots=slots)
    sha = world.push(project, repository, {".keepflow.yml": FLOW % ", ".join(map(str, range(count)))})
    world.send(project, world.pushed(sha))
    return agent, agent.orders()


def _bodies(order: messages.RunJob, state: str = "succeeded") -> list[Any]:
    fence, code = order.fence, 0 if state == "succeeded" else 2
    return [
        messages.JobStarted(fence=fence, at=1),
        messages.StepStarted(fence=fence, index=0, name="make", at=1, offset=10),
        messages.StepFinished(fence=fence, index=0, at=1, exit_code=0, offset=20),
        messages.StepStarted(fence=fence, index=1, name="make test", at=1, offset=20),
        *([messages.StepFinished(fence=fence, index=1, at=1, exit_code=code, offset=30)] if not code else []),
        messages.JobFinished(
            fence=fence, at=2, state=state, code="exit" if code else "", sentence="it failed" if code else "",
            exit_code=code, log_bytes=40, outputs={"N": str(fence)},
        ),
        messages.StepStarted(fence=fence, index=2, name="too late", at=3, offset=40),  # after its end: nothing of it
    ]  # fmt: skip


def _take(world: World, agent: Any, bodies: list[Any], together: bool) -> None:
    numbered = [messages.Report(number=next(agent.numbers), body=body) for body in bodies]
    for batch in [numbered] if together else [[one] for one in numbered]:
        world.call(lambda tx, batch=batch: reports.take(tx, world.master, agent.id, batch, world.now))


def _seen(world: World, agent: Any) -> dict[str, Any]:
    """Return everything that reports change, but not when and in which order of jobs."""
    with world.read() as conn:
        attempts = [one for job in world.jobs().values() for one in jobs.attempts_of(conn, job.id)]
        return {
            "run": (world.run().state, world.run().reason),
            "jobs": {key: (job.state, job.reason_code, job.outputs) for key, job in world.jobs().items()},
            "attempts": sorted((one.fence, one.state, one.exit_code, one.log_bytes) for one in attempts),
            "steps": sorted(
                (one.id, step.ordinal, step.state, step.exit_code, step.log_to)
                for one in attempts
                for step in steps.of_attempt(conn, one.id)
            ),
            "events": sorted(one.kind for one in events.since(conn, 0, 10_000)),
            "whole": events.broken_at(conn),
            "told": sorted((row.fence, row.body["type"]) for row in outgoing.waiting(conn, agent.id)),
        }


@pytest.mark.parametrize("ends", [("succeeded",) * 4, ("failed", "succeeded", "cancelled", "succeeded")])
def test_together_is_the_same_as_one_by_one(tmp_path: Path, ends: tuple[str, ...]) -> None:
    """Four jobs of a run told in one message each or all at once, with words after their end and of a stranger."""
    seen = []
    for together in (False, True):
        world = World(tmp_path / str(together))
        try:
            agent, orders = _begin(world, count=4)
            bodies = [body for order, state in zip(orders, ends, strict=True) for body in _bodies(order, state)]
            stranger = messages.JobStarted(fence=10_000, at=1)
            _take(world, agent, [stranger, *bodies], together)
            seen.append(_seen(world, agent))
        finally:
            world.close()
    assert seen[0] == seen[1]
    assert seen[1]["whole"] is None
    assert (10_000, "stop-job") in seen[1]["told"]


def test_a_report_in_a_batch_that_was_taken_before_changes_nothing(world: World) -> None:
    agent, orders = _begin(world, count=1)
    first = [messages.Report(number=n, body=body) for n, body in enumerate(_bodies(orders[0])[:3], 1)]
    world.call(lambda tx: reports.take(tx, world.master, agent.id, first, world.tick()))
    rest = [messages.Report(number=n, body=body) for n, body in enumerate(_bodies(orders[0])[3:6], 4)]
    again = [*first, *first[:1], *rest, *rest]
    world.call(lambda tx: reports.take(tx, world.master, agent.id, again, world.tick()))
    assert world.run().state == State.SUCCEEDED
    with world.read() as conn:
        kinds = [one.kind for one in events.since(conn, 0, 1000)]
    assert kinds.count("job-ended") == 1
    assert "stale-report" not in kinds


def test_many_jobs_together_ask_little_of_the_store(world: World) -> None:
    """What eight ends and eight new orders ask is far from eight times what one does."""
    agent, orders = _begin(world, count=40, slots=8)
    asked: list[str] = []
    engine = world.master.database._writing
    sa_event.listen(engine, "before_cursor_execute", lambda *said: asked.append(said[2]))
    _take(world, agent, _bodies(orders[0])[:-1], together=True)
    alone, _ = len(asked), asked.clear()
    _take(world, agent, [body for order in orders[1:] for body in _bodies(order)[:-1]], together=True)
    assert len(agent.orders()) == 8  # as many as had ended
    assert len(asked) < 3 * alone
    assert len(asked) / 7 < 12
