"""The link to the master: proven on both sides, gap-free through every break, never faster than the master can take."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from keepflow.agent.attempts import Attempt, Attempts
from keepflow.agent.channel import Wake
from keepflow.agent.clock import Clock
from keepflow.agent.link import WINDOW, Link
from keepflow.agent.pins import Pins
from keepflow.agent.reports import Reports
from keepflow.agent.state import Identity
from keepflow.agent.waits import Waits
from keepflow.core import deploys
from keepflow.crypto import dsse, keys, rotation
from keepflow.crypto.keys import PrivateKey
from keepflow.errors import OutOfSpace
from keepflow.wire import messages
from tests.agent.test_attempts import order
from tests.fakes import FakeMaster, serve_master
from tests.real.waiting import wait_until


@dataclass
class End:
    """The agent's end of a link, without an agent around it."""

    master: FakeMaster
    root: Path
    name: str = "build-1"
    key: PrivateKey = field(default_factory=keys.generate)
    taken: list[messages.Body] = field(default_factory=list)
    saved: list[Identity] = field(default_factory=list)
    full: bool = False
    ca_pem: str = ""
    link: Link | None = None

    def __post_init__(self) -> None:
        self.wake = Wake()
        self.clock = Clock()
        self.root.mkdir(exist_ok=True)
        self.reports = Reports(self.root / "reports", self.wake)
        (self.root / "attempts").mkdir(exist_ok=True)
        self.attempts = Attempts(self.root / "attempts", self.wake)
        self.master.agents[self.key.public.key_id] = (self.name, self.key.public)

    def start(self) -> None:
        """Dial in and keep the link."""
        identity = Identity(self.name, self.master.url, (self.master.key.public,), self.ca_pem)
        self.pins = Pins(identity, self.saved.append)
        self.link = Link(
            self.pins,
            self.key,
            reports=self.reports,
            attempts=self.attempts,
            clock=self.clock,
            wake=self.wake,
            hello=lambda hello: hello.model_copy(update={"running": tuple(one.fence for one in self.attempts)}),
            beat=lambda: messages.Heartbeat(at=self.clock.now()),
            take=self.take,
        )
        self.thread = threading.Thread(target=self.link.run)
        self.thread.start()

    def take(self, bodies: Sequence[messages.Body]) -> None:
        if self.full:
            raise OutOfSpace("the disk is full")
        self.taken += bodies

    def attempt(self, fence: int) -> Attempt:
        made = self.attempts.add(order(fence))
        assert made is not None
        return made

    def stop(self) -> None:
        if self.link is not None and self.thread.is_alive():
            self.link.leave("the test ends")
            self.thread.join(10)
            assert not self.thread.is_alive()


@pytest.fixture
def master() -> Iterator[FakeMaster]:
    with serve_master() as found:
        yield found


@pytest.fixture
def end(master: FakeMaster, tmp_path: Path) -> Iterator[End]:
    made = End(master, tmp_path / "end")
    yield made
    made.stop()


def linked(master: FakeMaster) -> None:
    wait_until(lambda: master.connected, 20, "the link")


def started(fence: int) -> messages.JobStarted:
    return messages.JobStarted(fence=fence, at=1)


def test_reports_come_in_order_each_by_its_number(master: FakeMaster, end: End) -> None:
    for fence in range(500):
        end.reports.append(started(fence))
    end.start()
    wait_until(lambda: len(master.reports) == 500, 20, "all reports")
    assert [master.reports[number].fence for number in sorted(master.reports)] == list(range(500))
    assert sorted(master.reports) == list(range(1, 501))
    wait_until(lambda: end.reports.confirmed == 500, 20, "all confirmations")


def test_a_message_is_confirmed_only_when_it_is_on_the_disk(master: FakeMaster, end: End) -> None:
    end.full = True
    end.start()
    linked(master)
    stop = messages.StopJob(fence=1, code="x", sentence="x")
    master.send(stop)
    wait_until(lambda: len(master.hellos) >= 3, 20, "new tries")
    assert list(master.outgoing) == [1]
    end.full = False
    wait_until(lambda: not master.outgoing, 20, "the confirmation")
    assert end.taken == [stop]


def test_messages_that_come_with_the_welcome_are_heard(master: FakeMaster, end: End) -> None:
    for fence in range(50):
        master.send(messages.StopJob(fence=fence, code="x", sentence="x"))
    end.start()
    wait_until(lambda: not master.outgoing, 20, "all confirmations")
    assert [body.fence for body in end.taken] == list(range(50))


@pytest.mark.parametrize("seed", range(6))
def test_logs_and_reports_are_whole_through_breaks_at_random_moments(master: FakeMaster, end: End, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - the same breaks every time, on purpose
    logs = {attempt.fence: (attempt, bytearray()) for attempt in (end.attempt(fence) for fence in (1, 2, 3))}
    end.start()
    for turn in range(300):
        attempt, written = logs[chance.choice((1, 2, 3))]
        piece = chance.randbytes(chance.choice((1, 10, 1000, 70_000)))
        attempt.log.append(piece)
        written += piece
        end.reports.append(started(turn))
        if chance.random() < 0.05:
            master.cut()
    wait_until(lambda: len(master.reports) == 300, 60, "all reports")
    for fence, (_, written) in logs.items():
        wait_until(lambda fence=fence, written=written: len(master.logs[fence]) == len(written), 60, "the whole log")
        assert master.logs[fence] == written
    assert not master.log_gaps
    assert [master.reports[number].fence for number in sorted(master.reports)] == list(range(300))


def test_a_new_process_goes_on_where_the_last_one_was(master: FakeMaster, end: End) -> None:
    attempt = end.attempt(1)
    attempt.log.append(b"first ")
    end.start()
    master.await_log(1, b"first ")
    end.stop()
    attempt.log.append(b"second ")
    again = End(master, end.root, key=end.key)
    again.start()
    assert master.await_log(1, b"second ") == b"first second "
    again.stop()
    assert not master.log_gaps


def test_a_master_that_confirms_nothing_gets_only_a_window_of_a_log(master: FakeMaster, end: End) -> None:
    master.acks_logs = False
    flood, quiet = end.attempt(1), end.attempt(2)
    for _ in range(2 * WINDOW // 131_072):
        flood.log.append(b"x" * 131_072)
    end.start()
    wait_until(lambda: len(master.logs.get(1, b"")) == WINDOW, 20, "a full window")
    quiet.log.append(b"another log goes on")
    end.reports.append(started(9))
    master.await_log(2, b"another log goes on")
    wait_until(lambda: master.reports, 20, "the report")
    assert len(master.logs[1]) == WINDOW
    master.acks_logs = True
    master.cut()
    wait_until(lambda: len(master.logs[1]) == flood.log.size, 30, "the rest")


def test_a_master_that_was_restored_is_sent_what_it_lost(master: FakeMaster, end: End) -> None:
    attempt = end.attempt(1)
    attempt.log.append(b"0123456789")
    end.start()
    wait_until(lambda: attempt.log.acked == 10, 20, "the confirmation")
    del master.logs[1][4:]
    master.cut()
    wait_until(lambda: bytes(master.logs[1]) == b"0123456789", 20, "the rest, again")
    attempt.log.append(b"abc")
    wait_until(lambda: bytes(master.logs[1]) == b"0123456789abc", 20, "what came after")


def test_a_master_with_another_key_is_told_nothing(master: FakeMaster, end: End) -> None:
    master.signs_with = keys.generate()
    end.reports.append(started(1))
    end.start()
    wait_until(lambda: len(master.hellos) >= 3, 20, "tries")
    assert not master.reports
    assert not master.heartbeats
    master.signs_with = None
    wait_until(lambda: master.reports, 20, "the report, once it is the right master")


def test_an_agent_that_was_away_follows_every_new_key_its_master_made_since(master: FakeMaster, end: End) -> None:
    second, third = keys.generate(), keys.generate()
    master.rotations = (rotation.seal(master.key, second, 5), rotation.seal(second, third, 9))
    master.signs_with = third
    end.reports.append(started(1))
    end.start()
    linked(master)
    wait_until(lambda: master.reports, 20, "the report")
    assert end.saved[-1].order_keys == (third.public,)
    assert [former.key for former in end.saved[-1].former] == [master.key.public, second.public]


def test_a_new_key_that_the_old_one_did_not_sign_leads_nobody_away(master: FakeMaster, end: End) -> None:
    theirs, other = keys.generate(), keys.generate()
    forged = rotation.seal(theirs, other, 5)
    payload = deploys.canonical({"version": 1, "old": master.key.public.text, "new": theirs.public.text, "at": 5})
    claimed = dsse.seal(payload, rotation.PAYLOAD_TYPE, theirs)
    end.start()
    linked(master)
    beats = len(master.heartbeats)
    for chain in ((forged,), (claimed,), ({"payload": "x"},)):
        seen = len(master.hellos)
        master.rotations, master.signs_with = chain, theirs
        master.cut()
        wait_until(lambda seen=seen: len(master.hellos) >= seen + 2, 20, "two more tries")
    assert len(master.heartbeats) == beats
    assert end.pins.identity.order_keys == (master.key.public,)
    assert end.saved == []


def test_a_new_key_reaches_a_linked_agent_and_is_on_its_disk_before_it_is_confirmed(
    master: FakeMaster, end: End
) -> None:
    end.start()
    linked(master)
    new = keys.generate()
    master.send(messages.KeyRotated(envelope=rotation.seal(master.key, new, 5)))
    wait_until(lambda: not master.outgoing, 20, "the confirmation")
    assert end.saved[-1].order_keys == (new.public,)
    master.send(messages.KeyRotated(envelope=rotation.seal(keys.generate(), keys.generate(), 6)))
    master.send(messages.KeyRotated(envelope={"payload": "x"}))
    wait_until(lambda: not master.outgoing, 20, "the confirmation of what leads nowhere")
    assert end.pins.identity.order_keys == (new.public,)
    assert end.taken == []


def test_a_master_that_gives_another_name_is_not_believed(master: FakeMaster, end: End) -> None:
    master.agents[end.key.public.key_id] = ("prod-1", end.key.public)
    end.start()
    wait_until(lambda: len(master.hellos) >= 2, 20, "tries")
    assert not master.heartbeats


def test_a_refused_agent_asks_again_and_keeps_its_identity(master: FakeMaster, end: End) -> None:
    master.refuses = messages.Refused(code="busy", sentence="another one is here")
    end.start()
    wait_until(lambda: master.hellos, 20, "the first try")
    master.refuses = None
    linked(master)


def test_a_silent_master_is_given_up_after_two_heartbeats(
    master: FakeMaster, end: End, monkeypatch: pytest.MonkeyPatch
) -> None:
    master.heartbeat = 0.2
    end.start()
    linked(master)
    monkeypatch.setattr(FakeMaster, "hear", lambda *_: None)
    wait_until(lambda: len(master.hellos) >= 2, 20, "a new link")


def test_a_farewell_says_when_to_come_back(master: FakeMaster, end: End) -> None:
    end.start()
    linked(master)
    assert master._session is not None
    master._session.say(messages.Farewell(sentence="the master stops", retry=0.1))
    wait_until(lambda: len(master.hellos) == 2, 5, "the next link")


def test_unknown_messages_are_passed_over(master: FakeMaster, end: End) -> None:
    class News(messages.Message):
        type: str = "news-of-a-later-version"
        text: str = "x"

    end.start()
    linked(master)
    assert master._session is not None
    master._session.say(News())
    master.send(messages.StopJob(fence=1, code="x", sentence="x"))
    wait_until(lambda: not master.outgoing, 20, "the confirmation")
    assert len(master.hellos) == 1


def test_a_master_of_another_protocol_is_left_alone(
    master: FakeMaster, end: End, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = messages.Challenge.model_fields["protocol"]
    monkeypatch.setattr(fields, "default", (7, 9))
    messages.Challenge.model_rebuild(force=True)
    try:
        end.start()
        wait_until(lambda: end.link is not None and end.link.turns >= 2, 20, "tries")
        assert not master.hellos
    finally:
        monkeypatch.undo()
        messages.Challenge.model_rebuild(force=True)


def test_a_farewell_of_the_agent_comes_after_everything_it_had_to_say(master: FakeMaster, end: End) -> None:
    attempt = end.attempt(1)
    end.start()
    linked(master)
    attempt.log.append(b"y" * 400_000)
    for fence in range(100):
        end.reports.append(started(fence))
    end.stop()
    assert len(master.reports) == 100
    assert len(master.logs[1]) == 400_000
    assert [word.sentence for word in master.farewells] == ["the test ends"]


def test_the_masters_clock_is_known_after_the_welcome(
    master: FakeMaster, end: End, monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    real = time.time_ns
    monkeypatch.setattr("tests.fakes.time.time_ns", lambda: real() + 3600 * 10**9)
    end.start()
    linked(master)
    wait_until(lambda: abs(end.clock.now() - time.time_ns() // 1000) < 2_000_000, 10, "the master's hour")


def test_no_thread_and_no_descriptor_is_left_after_many_breaks(master: FakeMaster, end: End) -> None:
    end.start()
    linked(master)

    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    def break_once() -> None:
        before = len(master.hellos)
        master.cut()
        wait_until(lambda: len(master.hellos) > before and master.connected, 20, "the next link")

    break_once()
    settled: Callable[[], int] = lambda: min(descriptors() for _ in range(3))  # noqa: E731 - one word for two lines
    before, threads = settled(), threading.active_count()
    for _ in range(15):
        break_once()
    wait_until(lambda: settled() <= before + 2 and threading.active_count() <= threads + 1, 10, "nothing left over")


def test_waits_grow_with_jitter_up_to_a_minute_and_begin_anew() -> None:
    waits = Waits()
    seen = [[waits.next() for waits in [Waits()] for _ in range(12)] for _ in range(200)]
    for position in range(12):
        at_this_try = [row[position] for row in seen]
        limit = min(0.2 * 2**position, 60)
        assert max(at_this_try) <= limit
        assert max(at_this_try) > limit * 0.8
        assert min(at_this_try) < limit * 0.2
    for _ in range(20):
        waits.next()
    waits.reset()
    assert waits.next() <= 0.2
    waits.asked(3.0)
    assert 3.0 <= waits.next() <= 4.5
    assert waits.next() <= 0.4
    waits.refused()
    assert waits.next() >= 2.5
