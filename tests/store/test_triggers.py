"""What starts runs and whom they are told to: the clock's rows, words for forges, runs that wait for a person."""

from __future__ import annotations

from dataclasses import replace

from keepflow.core.events import Event, EventKind
from keepflow.core.states import Reason, State
from keepflow.store import lines, projects, runs, schedules, statuses
from keepflow.store.lines import Line
from keepflow.store.schedules import Scheduled
from keepflow.store.writer import Tx, Writer

EVENT = Event(EventKind.PULL_REQUEST, "refs/pull/7/head", "a" * 40, number=7, fork=True)


def _project(tx: Tx, name: str = "keepwork") -> int:
    return projects.add(tx.conn, 1, name, "https://example.org/r.git", "github")


def _run(tx: Tx, project_id: int, trust: str, at: int = 2) -> runs.Run:
    number, why = projects.next_number(tx.conn, project_id), Reason("test", "because")
    new = runs.NewRun(project_id, number, "dev", EVENT, State.QUEUED, why, "why", {}, "other", None)
    return runs.add(tx.conn, at, replace(new, trust=trust))  # type: ignore[arg-type]  # the words of Trust


def test_f17_a_time_that_was_started_is_started_by_nobody_else(writer: Writer) -> None:
    def work(tx: Tx) -> tuple[bool, bool, list[int | None], list[Scheduled]]:
        one = Scheduled(_project(tx), "nightly", "@daily", "UTC", "refs/heads/main", 10)
        later = replace(one, flow="weekly", next_at=20)
        never = replace(one, flow="never", next_at=None)
        schedules.replace(tx.conn, one.project_id, [one, later, never])
        found = [row.next_at for row in schedules.due(tx.conn, 20)]
        first = schedules.fired(tx.conn, one, 10, 2, 30)
        second = schedules.fired(tx.conn, one, 10, 2, 30)
        return first, second, found, schedules.of_project(tx.conn, one.project_id)

    first, second, due, rows = writer.call(work)
    assert (first, second, due) == (True, False, [10, 20])
    assert [(row.flow, row.next_at, row.last_at, row.missed) for row in rows] == [
        ("never", None, None, 0),
        ("nightly", 30, 10, 2),
        ("weekly", 20, None, 0),
    ]


def test_r66_a_word_is_wanted_once_and_a_newer_one_takes_its_place(writer: Writer) -> None:
    def work(tx: Tx) -> list[object]:
        run = _run(tx, _project(tx), "other")
        statuses.want(tx.conn, run.id, run.project_id, "pending", 5)
        [waiting] = statuses.due(tx.conn, 5, 9)
        statuses.failed(tx.conn, waiting, "no answer", 50)
        held = (statuses.due(tx.conn, 49, 9), statuses.next_due(tx.conn))
        statuses.want(tx.conn, run.id, run.project_id, "success", 6)
        [newer] = statuses.due(tx.conn, 6, 9)
        statuses.ended(tx.conn, waiting, "pending", "")  # the answer to the older word comes late
        [still] = statuses.due(tx.conn, 6, 9)
        statuses.ended(tx.conn, still, "success", "")
        statuses.want(tx.conn, run.id, run.project_id, "success", 7)
        return [held, newer.wanted, newer.tries, still.told, statuses.due(tx.conn, 99, 9), statuses.next_due(tx.conn)]

    assert writer.call(work) == [([], 50), "success", 0, "pending", [], None]


def test_r06_a_fork_stands_in_no_line_until_somebody_lets_it_and_is_found_when_nobody_does(writer: Writer) -> None:
    def work(tx: Tx) -> list[object]:
        project_id = _project(tx)
        fork, other = _run(tx, project_id, "fork"), _run(tx, project_id, "other", 9)
        line = Line(project_id, "dev")
        before = lines.before(tx.conn, other, line)
        found = [run.id for run in runs.unapproved(tx.conn, 3)]
        approved = (runs.approve(tx.conn, fork.id, "ann"), runs.approve(tx.conn, fork.id, "bo"))
        after = lines.before(tx.conn, other, line)
        assert after is not None
        newest = runs.newest_of_flow(tx.conn, fork) == other.id
        return [before, found == [fork.id], approved, after.id == fork.id, runs.unapproved(tx.conn, 99), newest]

    assert writer.call(work) == [None, True, (True, False), True, [], True]
