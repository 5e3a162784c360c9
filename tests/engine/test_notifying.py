"""The outbox: told once, after the commit, to everybody, whatever breaks on the way; and no run is changed by it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from keepflow.core.states import FINAL, State
from keepflow.engine import advice, channels, clock, commands, notifying
from keepflow.engine.notifying import Outbox
from keepflow.errors import NotFound
from keepflow.store import events, jobs, notices, settings
from keepflow.store.notices import StoredNotice
from keepflow.tools.failpoints import Injected
from keepflow.wire.desired import DesiredChannel
from tests.engine.test_dispatch import flow, push
from tests.engine.world import PlayedAgent, World
from tests.notified import Ear, Mailbox, http_server, mail_server
from tests.real.waiting import wait_until

TEXT = flow("queue", steps="[{run: make}]")
TO = ("ann@example.org", "bo@example.org")


@pytest.fixture
def mail() -> Iterator[Mailbox]:
    with mail_server() as box:
        yield box


@pytest.fixture
def ear() -> Iterator[Ear]:
    with http_server() as made:
        yield made


def by_mail(mail: Mailbox, *words: str, projects: tuple[str, ...] = ()) -> DesiredChannel:
    """Return a channel to the mail server of the test."""
    settings = {"server": "127.0.0.1", "port": mail.port, "tls": "none", "from": "kf@example.org", "to": list(TO)}
    return DesiredChannel(kind="email", settings=settings, on=words or ("broken", "recovered"), projects=projects)


def to_a_program(ear: Ear, *words: str) -> DesiredChannel:
    """Return a channel to the HTTP server of the test."""
    settings = {"url": ear.url, "private": True}
    return DesiredChannel(kind="webhook", settings=settings, secrets={"secret": "s" * 20}, on=words or ("broken",))


class Building:
    """A project whose runs end as the test says, and its channels."""

    def __init__(self, world: World, **wanted: DesiredChannel) -> None:
        self.world = world
        self.project, self.repository = world.project()
        self.agent: PlayedAgent = world.agent()
        self.set_up(**wanted)

    def set_up(self, **wanted: DesiredChannel) -> None:
        """Make these the channels."""
        self.world.call(lambda tx: channels.put(tx.conn, self.world.master, wanted))

    def run(self, state: str = "succeeded") -> int:
        """Let a run end and return its number."""
        push(self.world, self.project, self.repository, TEXT, "dev")
        [order] = self.agent.orders()
        code = 0 if state == "succeeded" else 2
        self.agent.finish(order, state, exit_code=code)
        return self.world.runs()[-1].number

    def collect(self) -> list[StoredNotice]:
        """Make notices as a master does that has just started, and return all there are, oldest first."""
        with self.world.read() as conn:
            listeners = channels.listeners(conn, self.world.master)
        notifying.collect(self.world.master, listeners, None, self.world.tick())
        return self.all()

    def all(self) -> list[StoredNotice]:
        """Return all notices, oldest first."""
        with self.world.read() as conn:
            return list(reversed(notices.page(conn, limit=1000)))

    def send(self) -> None:
        """Send what is due now."""
        with self.world.read() as conn:
            listeners = {one.name: one for one in channels.listeners(conn, self.world.master)}
            waiting = notices.due(conn, self.world.now)
        for row in waiting:
            notifying.send(self.world.master, listeners.get(row.channel), row, self.world.tick)


def test_r64_all_recipients_are_told_of_the_first_failure_and_of_the_recovery(world: World, mail: Mailbox) -> None:
    building = Building(world, team=by_mail(mail))
    for state in ("succeeded", "failed", "failed", "succeeded", "succeeded"):
        building.run(state)
    building.collect()
    building.send()
    told = [(who, str(message["Subject"]).split("(")[0].strip()) for who, message in mail.taken]
    lines = ("[keepflow] keepwork dev #2 is broken", "[keepflow] keepwork dev #4 is good again")
    assert told == [(who, line) for line in lines for who in TO]


@pytest.mark.parametrize(("word", "numbers"), [("failed", [2, 3]), ("finished", [1, 2, 3, 4]), ("recovered", [4])])
def test_r64_on_failed_and_on_finished_are_honoured(world: World, mail: Mailbox, word: str, numbers: list[int]) -> None:
    building = Building(world, team=by_mail(mail, word))
    for state in ("succeeded", "failed", "failed", "succeeded"):
        building.run(state)
    told = [one.notice.facts["run"] for one in building.collect() if one.recipient == TO[0]]
    assert told == numbers


def test_r65_the_result_of_a_run_is_posted_as_json_to_a_url(world: World, ear: Ear) -> None:
    building = Building(world, program=to_a_program(ear, "finished"))
    numbers = [building.run("failed"), building.run()]
    building.collect()
    building.send()
    assert [headers["content-type"] for _, headers, _ in ear.heard] == ["application/json"] * 2
    told = [json.loads(body) for _, _, body in ear.heard]
    assert [one["facts"]["run"] for one in told] == numbers
    assert [one["facts"]["state"] for one in told] == ["failed", "succeeded"]
    for one, number in zip(told, numbers, strict=True):
        assert one["facts"]["project"] == "keepwork"
        assert one["facts"]["flow"] == "dev"
        assert one["facts"]["sha"] == world.run(number).sha
        assert one["url"] == f"http://127.0.0.1:8080/projects/keepwork/runs/{number}"


def test_nothing_is_told_before_it_is_committed(world: World, ear: Ear) -> None:
    building = Building(world, ops=to_a_program(ear))
    building.run("failed")
    with world.read() as conn:
        [event] = [one for one in events.since(conn, 0, 1000, kind="run-state") if one.data["state"] == "failed"]

    def rolled_back(tx: Any) -> None:
        events.add(tx, world.tick(), "run-state", project_id=event.project_id, run_id=event.run_id, data=event.data)
        raise Injected

    with pytest.raises(Injected):
        world.call(rolled_back)
    assert [one.event_id for one in building.collect()] == [event.id]


def test_r64_a_notice_is_made_once_however_often_the_master_starts(world: World, mail: Mailbox, ear: Ear) -> None:
    building = Building(world, team=by_mail(mail), ops=to_a_program(ear))
    building.run("failed")
    first = building.collect()
    assert [(one.channel, one.recipient) for one in first] == [("team", TO[0]), ("team", TO[1]), ("ops", "127.0.0.1")]
    world.call(lambda tx: settings.put(tx.conn, channels.SEEN, 0))  # as if a backup had been put back
    assert building.collect() == first
    building.send()
    building.send()
    assert (len(mail.taken), len(ear.heard)) == (2, 1)


def test_a_master_that_dies_after_sending_sends_again_under_the_same_id(
    world: World, ear: Ear, monkeypatch: pytest.MonkeyPatch
) -> None:
    building = Building(world, ops=to_a_program(ear))
    building.run("failed")
    building.collect()
    monkeypatch.setenv("KEEPFLOW_FAILPOINTS", "notice.sent=raise")
    with pytest.raises(Injected):
        building.send()
    assert [one.state for one in building.all()] == ["waiting"]
    monkeypatch.delenv("KEEPFLOW_FAILPOINTS")
    building.send()
    assert [one.state for one in building.all()] == ["sent"]
    assert len(ear.heard) == 2
    assert len({headers["x-keepflow-delivery"] for _, headers, _ in ear.heard}) == 1


def test_r64_a_failure_changes_no_run_is_shown_and_tried_again_until_it_is_given_up(world: World, ear: Ear) -> None:
    building = Building(world, ops=to_a_program(ear))
    ear.answers = [(500, {})]
    number = building.run("failed")
    before = world.run(number)
    building.collect()
    building.send()
    [row] = building.all()
    assert (row.state, row.tries, row.error) == ("waiting", 1, "127.0.0.1 answered 500")
    assert row.next_at is not None
    assert row.next_at > world.now
    with world.read() as conn:
        said = advice.of_project(conn, building.project.id)
    assert [line for line in said if "channel ops cannot be told anything: 127.0.0.1 answered 500" in line]
    for _ in range(60):
        world.tick(3600 * 1_000_000)
        building.send()
    [row] = building.all()
    assert (row.state, row.next_at) == ("failed", None)
    assert row.ended_at is not None
    assert len(ear.heard) == row.tries > 10
    assert world.run(number) == before


def test_a_recipient_nobody_knows_is_given_up_at_once_and_the_others_are_told(world: World, mail: Mailbox) -> None:
    building = Building(world, team=by_mail(mail))
    mail.refused = {TO[0]}
    building.run("failed")
    building.collect()
    building.send()
    assert [(one.recipient, one.state) for one in building.all()] == [(TO[0], "failed"), (TO[1], "sent")]


def test_a_new_channel_is_told_nothing_of_the_past_and_a_lost_one_no_more(
    world: World, mail: Mailbox, ear: Ear
) -> None:
    building = Building(world, ops=to_a_program(ear))
    building.run("failed")
    building.set_up(ops=to_a_program(ear), team=by_mail(mail, "finished"))
    building.run("failed")
    made = building.collect()
    assert [(one.channel, one.notice.facts["run"]) for one in made] == [("ops", 1), ("team", 2), ("team", 2)]
    building.set_up(team=by_mail(mail, "finished"))
    building.send()
    assert {one.channel: one.state for one in building.all()} == {"ops": "failed", "team": "sent"}
    assert ear.heard == []


def test_a_channel_hears_of_its_own_projects_only(world: World, mail: Mailbox) -> None:
    building = Building(world, team=by_mail(mail, "finished", projects=("another",)))
    building.run("failed")
    assert building.collect() == []


def test_secrets_of_channels_are_sealed_and_the_channel_still_opens(world: World, ear: Ear) -> None:
    building = Building(world, ops=to_a_program(ear))
    with world.read() as conn:
        assert "s" * 20 not in str(settings.get(conn, channels.KEY))
        assert channels.stored(conn, world.master.vault)["ops"] == to_a_program(ear)
        assert notifying.test(conn, world.master, "ops", world.tick()) == {"127.0.0.1": ""}
        with pytest.raises(NotFound):
            notifying.test(conn, world.master, "nobody", world.tick())
    assert len(ear.heard) == 1
    assert building.all() == []


def test_the_excerpt_is_the_end_of_the_failing_log_without_control_characters(world: World, mail: Mailbox) -> None:
    building = Building(world, team=by_mail(mail))
    push(world, building.project, building.repository, TEXT, "dev")
    [order] = building.agent.orders()
    text = b"".join(b"line %d\n" % number for number in range(100)) + b"\x1b[31m<b>error</b>\x1b[0m\n"
    world.master.logs.append(order.fence, 0, text, agent_id=building.agent.id).result(10)
    building.agent.finish(order, "failed", exit_code=2)
    building.collect()
    building.send()
    html = mail.taken[0][1].get_body(("html",))
    assert html is not None
    content = html.get_content().replace("\r\n", "\n")
    assert "line 99\n&lt;b&gt;error&lt;/b&gt;" in content
    assert "line 70\n" not in content
    assert "\x1b" not in content


# --- asked for by a flow ---

ON_FAILURE = """
version: 1
image: keepwork
flows:
  dev:
    on: {push: "**"}
    jobs:
      unit: {steps: [{run: make}]}
      tell: {needs: unit, when: failure, notify: "%s"}
"""


def asked(building: Building, address: str, state: str = "failed", **event: str) -> jobs.Job:
    """Let a run whose flow tells an address when `unit` failed come to its end; returns that job."""
    world = building.world
    sha = world.push(building.project, building.repository, {".keepflow.yml": ON_FAILURE % address, "n": address})
    world.send(building.project, replace(world.pushed(sha), **event))
    [order] = building.agent.orders()
    building.agent.finish(order, state, exit_code=2)
    assert world.runs()[-1].state in FINAL
    return world.jobs(world.runs()[-1].number)["tell"]


def test_r64_a_flow_tells_a_channel_by_name_and_an_address_by_mail(world: World, mail: Mailbox, ear: Ear) -> None:
    building = Building(world, team=by_mail(mail, "approval"), ops=to_a_program(ear, "approval"))
    assert (asked(building, "ops").state, asked(building, "ops").reason_code) == (State.SUCCEEDED, "told")
    assert asked(building, "cy@example.org").reason == "'cy@example.org' is told on team"
    assert asked(building, "ops", "succeeded").state is State.SKIPPED, "nothing failed"
    made = building.collect()
    assert [(one.channel, one.recipient) for one in made] == [
        ("ops", "127.0.0.1"),
        ("ops", "127.0.0.1"),
        ("team", "cy@example.org"),
    ]
    assert ("#1: unit failed" in made[0].notice.title, made[0].notice.facts["jobs"]) == (True, {"unit": "failed"})
    assert [run.state for run in world.runs()] == [State.FAILED] * 3 + [State.SUCCEEDED]


ASKING = """
version: 1
image: keepwork
flows:
  dev:
    on: {push: "**", pull_request: true}
    jobs:
      ask: {approve: Is the demo over?}
      after: {needs: ask, steps: [{run: make}]}
"""


def test_r64_whoever_hears_of_approvals_hears_once_of_a_flow_that_asks(world: World, mail: Mailbox, ear: Ear) -> None:
    building = Building(world, team=by_mail(mail, "broken"), ops=to_a_program(ear, "approval"))
    push(world, building.project, building.repository, ASKING, "dev")
    run = world.runs()[-1]
    assert run.state is State.WAITING
    assert len(building.collect()) == len(building.collect()) == 1
    [told] = building.all()
    assert (told.channel, told.notice.word) == ("ops", "approval")
    assert f"dev #{run.number} asks: Is the demo over? (dev@{run.sha[:7]}" in told.notice.title
    assert told.notice.lines[0] == f"keepflow approve {building.project.name}#{run.number} ask"
    assert told.notice.url.endswith(f"/runs/{run.number}")


def test_a_question_of_a_fork_is_told_to_nobody(world: World, ear: Ear) -> None:
    building = Building(world, ops=to_a_program(ear, "approval"))
    sha = world.push(building.project, building.repository, {".keepflow.yml": ASKING})
    world.send(building.project, replace(world.pushed(sha), fork=True))
    run = world.runs()[-1]
    world.call(lambda tx: commands.approve_run(tx, world.master, run.id, "bo", world.now))
    assert world.jobs(run.number)["ask"].reason_code == "approval"
    assert building.collect() == []


def test_a_notice_of_a_push_that_names_nobody_names_nobody(world: World, mail: Mailbox) -> None:
    building = Building(world, team=by_mail(mail, "finished"))
    sha = world.push(building.project, building.repository, {".keepflow.yml": TEXT})
    world.send(building.project, replace(world.pushed(sha), actor=""))
    [order] = building.agent.orders()
    building.agent.finish(order, "succeeded", exit_code=0)
    assert {one.notice.title.rpartition("(")[2] for one in building.collect()} == {f"dev@{sha[:7]})"}


def test_a_flow_cannot_write_to_strangers_and_a_fork_to_nobody(world: World, mail: Mailbox) -> None:
    building = Building(world, team=by_mail(mail, "approval"))
    told = asked(building, "all@elsewhere.example")
    assert (told.state, told.reason_code) == (State.SUCCEEDED, "nobody")
    assert told.reason == "no channel in the server file reaches 'all@elsewhere.example'"
    run = replace(world.run(), trust="fork")
    reason = world.call(lambda tx: notifying.ask(tx, world.master, run, told, world.tick()))
    assert (reason.code, reason.sentence) == ("nobody", "a fork's flow file tells nobody")
    assert building.collect() == []


# --- the threads ---


def test_a_dead_channel_keeps_no_other_waiting(world: World, mail: Mailbox, ear: Ear) -> None:
    """The clock is the real one here: the outbox is woken by commits, and a channel that hangs has its own thread."""
    building = Building(world, ops=to_a_program(ear), team=by_mail(mail))
    ear.answers = [(500, {})]
    outbox = Outbox(world.master)
    outbox.start()
    try:
        world.now = clock.now()
        number = building.run("failed")
        wait_until(lambda: len(mail.taken) == 2, 20, "mail to both")
        wait_until(lambda: [one.state for one in building.all()].count("sent") == 2, 20, "both marked")
        wait_until(lambda: any(one.error for one in building.all() if one.channel == "ops"), 20, "the failure shown")
    finally:
        outbox.stop(5)
    assert world.run(number).state is State.FAILED
