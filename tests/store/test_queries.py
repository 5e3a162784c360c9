"""The queries that carry rules: claims by state, fences, numbers, tokens, reports, the chain of events."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import pytest
from sqlalchemy import event as sa_event
from sqlalchemy import text

from keepflow.core.events import Event, EventKind, Parsed
from keepflow.core.flows import JobKind, PlannedJob
from keepflow.core.progress import NEEDS, NO_REASON
from keepflow.core.states import FINAL, MOVES, Reason, State
from keepflow.store import (
    agents,
    counters,
    deliveries,
    events,
    heads,
    jobs,
    lines,
    outgoing,
    projects,
    runs,
    settings,
    steps,
)
from keepflow.store.database import Database
from keepflow.store.deliveries import NewDelivery
from keepflow.store.lines import Line
from keepflow.store.writer import Tx, Writer

EVENT = Event(EventKind.PUSH, "refs/heads/dev", "a" * 40, message="fix", author="Ann", actor="ann")
WHY = Reason("test", "because a test says so")


def _project(tx: Tx, name: str = "keepwork") -> int:
    return projects.add(tx.conn, 1, name, "https://example.org/r.git", "github")


def _run(tx: Tx, project_id: int, state: State = State.QUEUED, flow: str = "dev", event: Event = EVENT) -> int:
    number = projects.next_number(tx.conn, project_id)
    return runs.add(tx.conn, 2, runs.NewRun(project_id, number, flow, event, state, WHY, "why", {}, "other", None)).id


def _job(tx: Tx, run_id: int, key: str = "steps", ordinal: int = 0) -> int:
    planned = PlannedJob(key, JobKind.SCRIPT)
    return jobs.add(tx.conn, run_id, ordinal, planned, asdict(planned), Reason(NEEDS, "waits"), 2)


def _new(project_id: int, delivery: str, event: Event | None = EVENT, at: int = 5) -> NewDelivery:
    parsed = Parsed(event) if event else Parsed(word="ping", sentence="pong")
    decision = None if event else {"sentence": "pong", "runs": [], "not": {}}
    return NewDelivery(project_id, delivery, "github", "push", {"a": "b"}, b"\x00\xff{}", parsed, decision, at)


def test_numbers_of_a_project_rise_and_come_back_with_it_after_it_was_removed(writer: Writer) -> None:
    def work(tx: Tx) -> list[int]:
        one, other = _project(tx), _project(tx, "other")
        taken = [projects.next_number(tx.conn, one) for _ in range(3)]
        projects.remove(tx.conn, one, 9)
        assert projects.by_name(tx.conn, "keepwork") is None
        assert projects.add(tx.conn, 10, "keepwork", "https://example.org/new.git", "github") == one
        return [*taken, projects.next_number(tx.conn, one), projects.next_number(tx.conn, other)]

    assert writer.call(work) == [1, 2, 3, 4, 1]


def test_a_delivery_is_stored_once_per_project_and_read_back_whole(database: Database, writer: Writer) -> None:
    def work(tx: Tx) -> tuple[int | None, int | None, int | None]:
        one, other = _project(tx), _project(tx, "other")
        return (
            deliveries.add(tx.conn, _new(one, "d1")),
            deliveries.add(tx.conn, _new(one, "d1", at=6)),
            deliveries.add(tx.conn, _new(other, "d1")),
        )

    first, again, elsewhere = writer.call(work)
    assert first is not None
    assert again is None
    assert elsewhere is not None
    with database.read() as conn:
        stored = deliveries.by_id(conn, first)
        assert stored is not None
        assert (stored.event, stored.headers, stored.received_at, stored.handled) == (EVENT, {"a": "b"}, 5, False)
        assert deliveries.body(conn, first) == b"\x00\xff{}"
        assert deliveries.by_delivery(conn, stored.project_id, "d1") == stored


def test_unhandled_deliveries_come_in_order_and_are_decided_once(writer: Writer) -> None:
    def work(tx: Tx) -> None:
        one, other = _project(tx), _project(tx, "other")
        later = deliveries.add(tx.conn, _new(other, "x"))
        ids = [deliveries.add(tx.conn, _new(one, f"d{n}")) for n in range(3)]
        deliveries.add(tx.conn, _new(one, "ping", event=None))
        assert deliveries.projects_waiting(tx.conn) == [other, one]
        for delivery_id in ids:
            found = deliveries.next_unhandled(tx.conn, one)
            assert found is not None
            assert found.id == delivery_id
            deliveries.explain_wait(tx.conn, found.id, "waiting: cannot fetch")
            assert deliveries.decide(tx.conn, found.id, {"sentence": "done", "runs": [], "not": {}}, 9)
            assert not deliveries.decide(tx.conn, found.id, {"sentence": "again", "runs": [], "not": {}}, 9)
            deliveries.explain_wait(tx.conn, found.id, "too late to wait")
            decided = deliveries.by_id(tx.conn, found.id)
            assert decided is not None
            assert decided.decision == {"sentence": "done", "runs": [], "not": {}}
        assert deliveries.next_unhandled(tx.conn, one) is None
        assert deliveries.projects_waiting(tx.conn) == [other]
        assert [found.delivery for found in deliveries.page(tx.conn, one, None, 10)] == ["ping", "d2", "d1", "d0"]
        assert later is not None

    writer.call(work)


@pytest.mark.parametrize("old", list(State))
def test_a_run_and_a_job_move_only_as_the_table_of_states_allows(writer: Writer, old: State) -> None:
    def work(tx: Tx) -> None:
        project = _project(tx)
        for new in State:
            run_id = _run(tx, project)
            job_id = _job(tx, run_id)
            tx.conn.execute(text("UPDATE runs SET state = :s WHERE id = :i"), {"s": old.value, "i": run_id})
            tx.conn.execute(text("UPDATE jobs SET state = :s WHERE id = :i"), {"s": old.value, "i": job_id})
            legal = new in MOVES[old] or (new is old and old not in FINAL)
            assert runs.move(tx.conn, run_id, new, WHY, 7) is legal, (old, new)
            assert jobs.move(tx.conn, job_id, new, WHY, 7) is legal, (old, new)
            expected = new if legal else old
            assert runs.by_id(tx.conn, run_id).state is expected
            assert jobs.by_id(tx.conn, job_id).state is expected
            if legal and new in FINAL:
                assert runs.by_id(tx.conn, run_id).finished_at == 7

    writer.call(work)


def test_a_queued_job_is_claimed_once(writer: Writer) -> None:
    def work(tx: Tx) -> None:
        job_id = _job(tx, _run(tx, _project(tx)))
        assert not jobs.claim(tx.conn, job_id)
        jobs.move(tx.conn, job_id, State.QUEUED, NO_REASON)
        assert jobs.claim(tx.conn, job_id)
        assert not jobs.claim(tx.conn, job_id)

    writer.call(work)


def test_attempts_get_rising_fences_their_own_log_and_end_once(writer: Writer) -> None:
    def work(tx: Tx) -> None:
        agent = agents.enrol(tx.conn, "local", "ed25519:x", "sha256:x", 1)
        other = agents.enrol(tx.conn, "other", "ed25519:y", "sha256:y", 1)
        job_id = _job(tx, _run(tx, _project(tx)))
        first = jobs.add_attempt(tx.conn, job_id, agent, 3, token_hash="t1")
        second = jobs.add_attempt(tx.conn, job_id, agent, 4, token_hash="t2")
        assert (first.n, second.n, second.fence - first.fence) == (1, 2, 1)
        assert (first.log_path, second.log_path) == ("keepwork/1/steps.1.log", "keepwork/1/steps.2.log")
        both = (first.fence, second.fence)
        assert jobs.held(tx.conn, both, agent) == {first.fence: first, second.fence: second}
        assert jobs.held(tx.conn, both, other) == {}
        assert jobs.tries(tx.conn, [job_id, job_id + 1]) == {job_id: 2}
        assert jobs.attempt_by_token(tx.conn, "t1") == first
        assert jobs.finish_attempts(tx.conn, [jobs.End(first.fence, State.FAILED, WHY, 2, 10)], 9) == 1
        assert not jobs.finish_attempt(tx.conn, first.fence, State.SUCCEEDED, WHY, 9)
        assert jobs.held(tx.conn, [first.fence], agent) == {}
        assert jobs.attempt_by_token(tx.conn, "t1") is None
        assert [found.fence for found in jobs.running_attempts(tx.conn, agent)] == [second.fence]
        assert [held.fence for held in jobs.holdings(tx.conn)] == [second.fence]

    writer.call(work)


def test_steps_are_written_once_and_closed_with_their_attempt(writer: Writer) -> None:
    def work(tx: Tx) -> None:
        attempt = jobs.add_attempt(tx.conn, _job(tx, _run(tx, _project(tx))), None, 3)
        for _ in range(2):
            steps.begin(tx.conn, [steps.Begun(attempt.id, 0, "make", 0)] * 2, 4)
        steps.end(tx.conn, [steps.Ended(attempt.id, 0, 0, 100), steps.Ended(attempt.id, 0, 1, 200)], 5)
        steps.begin(tx.conn, [steps.Begun(attempt.id, 1, "test", 100)], 6)
        steps.end_open(tx.conn, [(attempt.id, State.CANCELLED, 150)], 7)
        found = [
            (step.name, step.state, step.exit_code, step.log_from, step.log_to)
            for step in steps.of_attempt(tx.conn, attempt.id)
        ]
        assert found == [("make", State.SUCCEEDED, 0, 0, 100), ("test", State.CANCELLED, None, 100, 150)]

    writer.call(work)


def test_a_report_is_counted_once_and_a_new_key_starts_afresh(writer: Writer) -> None:
    def work(tx: Tx) -> None:
        agent = agents.enrol(tx.conn, "prod-1", "ed25519:a", "sha256:a", 1)
        assert [agents.count_reports(tx.conn, agent, n) for n in (1, 2, 2, 1, 5, 4)] == [0, 1, 2, 2, 2, 5]
        agents.change(tx.conn, agent, revoked_at=5, connected=True)
        assert agents.enrol(tx.conn, "prod-1", "ed25519:b", "sha256:b", 9) == agent
        found = agents.by_key(tx.conn, "sha256:b")
        assert found is not None
        assert (found.last_report, found.revoked_at, found.connected) == (0, None, False)
        assert agents.by_key(tx.conn, "sha256:a") is None

    writer.call(work)


def test_p14_a_join_token_works_once_and_not_after_its_time(writer: Writer) -> None:
    def work(tx: Tx) -> None:
        agents.add_join_token(tx.conn, "h1", "prod-1", "ann", 1, 100)
        agents.add_join_token(tx.conn, "h2", "prod-1", "ann", 1, 100)
        first, again = agents.burn_join_token(tx.conn, "h1", 50), agents.burn_join_token(tx.conn, "h1", 50)
        assert first is not None
        assert (first.agent, again) == ("prod-1", None)
        assert agents.burn_join_token(tx.conn, "h2", 100) is None
        assert agents.burn_join_token(tx.conn, "h3", 50) is None

    writer.call(work)


def test_outgoing_rows_stay_until_their_own_agent_has_them_and_forget_their_secrets(writer: Writer) -> None:
    def work(tx: Tx) -> None:
        agent, other = (agents.enrol(tx.conn, name, f"k{name}", f"i{name}", 1) for name in ("a", "b"))
        ids = [outgoing.add(tx.conn, agent, n, {"type": "x"}, 2, b"sealed") for n in range(3)]
        outgoing.received(tx.conn, other, ids, 3)
        assert [row.id for row in outgoing.waiting(tx.conn, agent)] == ids
        outgoing.received(tx.conn, agent, ids[:1], 3)
        assert [row.id for row in outgoing.waiting(tx.conn, agent)] == ids[1:]
        assert [row.id for row in outgoing.waiting(tx.conn, agent, after=ids[1])] == ids[2:]
        assert [outgoing.of_fence(tx.conn, agent, n)[0].sealed for n in (0, 1)] == [None, b"sealed"]
        assert not outgoing.is_waiting(tx.conn, 0)
        assert outgoing.is_waiting(tx.conn, 1)
        outgoing.withdraw(tx.conn, 1)
        assert [row.id for row in outgoing.waiting(tx.conn, agent)] == ids[2:]

    writer.call(work)


def test_heads_are_replaced_and_the_baseline_is_no_head(writer: Writer) -> None:
    def work(tx: Tx) -> None:
        project = _project(tx)
        assert not heads.has_baseline(tx.conn, project)
        heads.mark_baseline(tx.conn, project, 1)
        heads.put(tx.conn, project, "refs/heads/dev", "a" * 40, 1)
        heads.put(tx.conn, project, "refs/heads/dev", "b" * 40, 2)
        assert heads.has_baseline(tx.conn, project)
        assert heads.of_project(tx.conn, project) == {"refs/heads/dev": "b" * 40}
        heads.drop(tx.conn, project, "refs/heads/dev")
        assert heads.of_project(tx.conn, project) == {}

    writer.call(work)


def test_settings_and_counters_keep_what_they_were_given(writer: Writer) -> None:
    def work(tx: Tx) -> None:
        settings.put(tx.conn, "url", "https://a")
        settings.put(tx.conn, "url", {"b": [1, None]})
        assert settings.get(tx.conn, "url") == {"b": [1, None]}
        settings.drop(tx.conn, "url")
        assert settings.get(tx.conn, "url", "none") == "none"
        assert [counters.next_value(tx.conn, name) for name in ("a", "b", "a")] == [1, 1, 2]
        assert [counters.next_value(tx.conn, "a", count) for count in (3, 2, 1)] == [3, 6, 8]

    writer.call(work)


def test_runs_are_paged_newest_first_and_filtered(writer: Writer) -> None:
    def work(tx: Tx) -> None:
        one, other = _project(tx), _project(tx, "other")
        mine = [_run(tx, one, flow=flow) for flow in ("dev", "test", "dev")]
        theirs = _run(tx, other)
        assert [run.id for run in runs.page(tx.conn)] == [theirs, *reversed(mine)]
        assert [run.id for run in runs.page(tx.conn, {one}, before=mine[2])] == [mine[1], mine[0]]
        assert [run.id for run in runs.page(tx.conn, {one}, flow="dev", limit=1)] == [mine[2]]
        line = Line(one, "dev")
        assert [run.id for run in lines.members(tx.conn, line)] == [mine[0], mine[2]]
        assert lines.before(tx.conn, runs.by_id(tx.conn, mine[2]), line) == runs.by_id(tx.conn, mine[0])
        assert lines.overtaken(tx.conn, runs.by_id(tx.conn, mine[2])) == []
        runs.approve(tx.conn, mine[0], "bo")
        assert lines.overtaken(tx.conn, runs.by_id(tx.conn, mine[2])) == [mine[0]]
        assert lines.after(tx.conn, runs.by_id(tx.conn, mine[0]), line) == runs.by_id(tx.conn, mine[2])
        runs.give_turn(tx.conn, mine[0], 8)
        assert lines.overtaken(tx.conn, runs.by_id(tx.conn, mine[2])) == []
        assert lines.in_turn(tx.conn, runs.by_id(tx.conn, mine[2]), line) == runs.by_id(tx.conn, mine[0])
        runs.move(tx.conn, mine[0], State.CANCELLED, WHY, 9)
        assert [run.id for run in lines.members(tx.conn, line)] == [mine[2]]
        assert lines.before(tx.conn, runs.by_id(tx.conn, mine[2]), line) is None
        found = runs.by_number(tx.conn, one, 2)
        assert found is not None
        assert found.id == mine[1]
        last = runs.last_of_commit(tx.conn, one, EVENT.ref, EVENT.sha)
        assert last is not None
        assert last.id == mine[2]

    writer.call(work)


def test_p28_every_change_of_the_events_breaks_their_chain(database: Database, writer: Writer) -> None:
    ids = [
        writer.call(lambda tx, n=n: events.add(tx, n, "kind", actor=f"a{n}", project_id=n, data={"n": n, "text": "ü"}))
        for n in range(20)
    ]
    with database.read() as conn:
        assert events.broken_at(conn) is None
        assert [found.id for found in events.since(conn, ids[4], 3)] == ids[5:8]
        assert [found.id for found in events.since(conn, 0, 10, project_id=7)] == [ids[7]]
        assert events.last_id(conn) == ids[-1]
    for change, at in (
        ("UPDATE events SET actor = 'x' WHERE id = :id", 9),
        ("UPDATE events SET at = 99 WHERE id = :id", 0),
        ("DELETE FROM events WHERE id = :id", 5),
    ):
        with database.writing() as conn:
            transaction = conn.begin()
            conn.execute(text(change), {"id": ids[at]})
            broken = events.broken_at(conn)
            assert broken == ids[at] if change.startswith("UPDATE") else broken == ids[at + 1]
            transaction.rollback()


def test_the_chain_goes_on_rightly_after_a_closure_that_failed(database: Database) -> None:
    writer = Writer(database, window=30)
    writer.start()

    def fails(tx: Tx) -> None:
        events.add(tx, 2, "never")
        raise ValueError

    futures = [writer.submit(lambda tx: events.add(tx, 1, "one")), writer.submit(fails)]
    futures.append(writer.submit(lambda tx: events.add(tx, 3, "three")))
    assert [future.exception(10) is None for future in futures] == [True, False, True]
    writer.call(lambda tx: events.add(tx, 4, "four"))
    with database.read() as conn:
        assert events.broken_at(conn) is None
        assert [found.kind for found in events.since(conn, 0, 10)] == ["one", "three", "four"]
    writer.close()


def test_a_jobless_event_column_survives_hostile_text(database: Database, writer: Writer) -> None:
    hostile = replace(
        EVENT, message="'; DROP TABLE runs; --\u2028<script>", actor="ünï\x1b[31m", ref="refs/heads/--upload-pack=x"
    )

    run_id = writer.call(lambda tx: _run(tx, _project(tx), event=hostile))
    with database.read() as conn:
        assert runs.by_id(conn, run_id).event == hostile


def test_what_is_asked_every_second_walks_no_history(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/plans.db")
    database.migrate()
    asked: list[str] = []
    with database.read() as conn:
        sa_event.listen(conn, "before_cursor_execute", lambda *given: asked.append(f"{given[2]}|{len(given[3])}"))
        assert runs.overdue(conn, 5) == []
        assert jobs.due_again(conn, 5) == []
        for statement, count in [said.rsplit("|", 1) for said in list(asked)]:
            marks = (1,) * int(count)
            plan = conn.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", marks).all()
            assert all(row[3].startswith("SEARCH") for row in plan), (statement, plan)
    database.dispose()
