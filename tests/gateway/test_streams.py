"""Live streams against a real server: every byte once, whatever breaks, and nobody reads along who may not."""

from __future__ import annotations

import random
import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from keepflow.wire import messages
from tests.gateway.conftest import Served, serve
from tests.gateway.played import Link, Played
from tests.gateway.readers import Heard, Reader
from tests.processes import hook_headers, push_body
from tests.real.waiting import wait_until


class Running:
    """A run whose job an agent played by the test holds."""

    def __init__(self, served: Served, link: Link) -> None:
        self.served, self.link = served, link
        body = push_body(sha=served.sha)
        reply = served.master.ask("POST", "/hooks/app", body, hook_headers(body, secrets.token_hex(8)))
        path = f"/projects/app/deliveries/{reply.json['delivery']}"
        decision = wait_until(lambda: served.master.api("GET", path).json["decision"], 20, "the push is decided")
        self.number = decision["runs"][0]["run"]
        self.fence = link.take_order().body.fence
        self.sent = 0
        self._readers: list[Reader] = []

    def read(self, path: str = "", last_id: str = "", **headers: str) -> Reader:
        """Open a stream: this run's log, or another path."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self._readers.append(Reader(self.served.master, path or self.path, last_id, named))
        return self._readers[-1]

    def close(self) -> None:
        for reader in self._readers:
            reader.close()
        if self.served.master.api("GET", f"/projects/app/runs/{self.number}").json["state"] == "running":
            self.finish()

    @property
    def path(self) -> str:
        return f"/streams/runs/app/{self.number}/log"

    def log(self, data: bytes) -> None:
        for start in range(0, len(data), messages.LOG_FRAME_LIMIT):
            piece = data[start : start + messages.LOG_FRAME_LIMIT]
            self.link.send_log(self.fence, self.sent, piece)
            self.sent += len(piece)

    def finish(self, state: str = "succeeded") -> None:
        body = messages.JobFinished(fence=self.fence, at=9, state=state, exit_code=0, log_bytes=self.sent)
        number = self.link.report(body)
        while self.link.hear_until(messages.Reported).number < number:
            continue

    def stored(self) -> bytes:
        return self.served.master.api("GET", f"/projects/app/runs/{self.number}/log").body


@pytest.fixture(scope="module")
def served_with_agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, Link]]:
    served = serve(tmp_path_factory.mktemp("streams"))
    yield served, Played.joined(served.master, "builder").link()
    served.master.close()


@pytest.fixture
def running(served_with_agent: tuple[Served, Link]) -> Iterator[Running]:
    run = Running(*served_with_agent)
    yield run
    run.close()


def _text(heard: list[Heard]) -> str:
    return "".join(event.data["text"] for event in heard if event.name == "log")


def test_r60_a_log_streams_from_line_one_and_ends_with_the_run(running: Running) -> None:
    reader = running.read()
    assert reader.status == 200
    assert "text/event-stream" in reader.headers
    assert "x-accel-buffering: no" in reader.headers
    assert "cache-control: no-cache" in reader.headers
    first = reader.next()
    assert first is not None
    assert (first.name, first.data["state"]) == ("state", "running")
    running.link.report(messages.JobStarted(fence=running.fence, at=1))
    running.link.report(messages.StepStarted(fence=running.fence, index=0, name="make", at=2, offset=0))
    heard = reader.until("step")
    running.log(b"one\n")
    heard += reader.until("log")
    assert heard[-1].data | {"text": ""} == {
        "fence": running.fence,
        "job": heard[-1].data["job"],
        "attempt": 1,
        "from": 0,
        "to": 4,
        "text": "",
    }
    running.log("zwei – 二\n".encode())
    running.link.report(messages.StepFinished(fence=running.fence, index=0, at=3, exit_code=0, offset=running.sent))
    running.finish()
    heard += reader.until("end")
    assert _text(heard) == "one\nzwei – 二\n"
    assert heard[-1].data["state"] == "succeeded"
    steps = [event.data for event in heard if event.name == "step"]
    assert (steps[0]["state"], steps[-1]["state"], steps[-1]["to"]) == ("running", "succeeded", running.sent)
    assert reader.next() is None


def test_r60_a_late_joiner_gets_everything(running: Running) -> None:
    running.log(b"x" * 300_000 + b"\n")
    running.log(b"last line\n")
    wait_until(lambda: running.stored().endswith(b"last line\n"), 10, "the log is stored")
    reader = running.read()
    running.finish()
    assert _text(reader.until("end")) == "x" * 300_000 + "\nlast line\n"
    again = running.read()
    assert _text(again.until("end")) == "x" * 300_000 + "\nlast line\n"


def test_r61_reading_with_random_disconnects_gives_the_stored_log_byte_for_byte(running: Running) -> None:
    picked = random.Random(61)  # noqa: S311 - the same breaks on every run
    words = ["make", "größe", "完了", "\x1b[31mred\x1b[0m", "a" * 200, "", "\t", "🚀"]
    text = "".join(f"{number} {picked.choice(words)}\n" for number in range(20_000)).encode()

    got, last_id, at = "", "", 0
    while at < len(text):
        size = picked.randint(1, 30_000)
        running.log(text[at : at + size])
        at += size
        reader = running.read(last_id=last_id)
        for _ in range(picked.randint(1, 4)):
            try:
                event = reader.next(picked.choice((0.001, 0.05)))
            except TimeoutError:
                break
            if event is not None and event.name == "log":
                assert event.data["from"] == len(got.encode()), "a gap or a repeat"
                got += event.data["text"]
        last_id = reader.last_id
        reader.close()
    running.finish()
    got += _text(running.read(last_id=last_id).until("end"))
    assert got.encode() == text
    assert running.stored() == text


def test_bytes_that_are_no_text_are_shown_as_such_and_offsets_still_count_bytes(running: Running) -> None:
    running.log(b"\xff\xfe ok \xe2\x82")
    reader = running.read()
    heard = reader.until("log")
    running.log(b"\xac end \xc3")
    running.finish()
    heard += reader.until("end")
    pieces = [event.data for event in heard if event.name == "log"]
    assert _text(heard) == "\ufffd\ufffd ok € end \ufffd"
    assert [piece["to"] for piece in pieces][-1] == running.sent


def test_a_reader_that_is_slow_gets_everything_and_harms_nobody(running: Running) -> None:
    before = running.served.master.rss()
    slow = running.read()
    line = b"y" * 199 + b"\n"
    for _ in range(100):
        running.log(line * 1000)
    wait_until(lambda: len(running.stored()) == running.sent, 30, "the log is stored")
    assert running.served.master.rss() - before < 60 * 1024 * 1024
    running.finish()
    assert len(_text(slow.until("end", 60)).encode()) == running.sent


@pytest.mark.parametrize("last_id", ["x", "1", "-1:5", "1:99999999999999999999", "999999:0", "0:0", "1:2:3", "¹:1"])
def test_a_made_up_last_event_id_gives_a_whole_log_or_none(running: Running, last_id: str) -> None:
    running.log(b"line\n")
    running.finish()
    heard = running.read(last_id=last_id).until("end")
    assert _text(heard) in ("line\n", "")


def test_many_readers_of_one_log_all_get_all_of_it(running: Running) -> None:
    readers = [running.read() for _ in range(200)]
    for number in range(200):
        running.log(b"%d\n" % number)
    running.finish()
    wanted = "".join(f"{number}\n" for number in range(200))
    with ThreadPoolExecutor(16) as pool:
        assert set(pool.map(lambda reader: _text(reader.until("end", 60)), readers)) == {wanted}


def test_the_feed_tells_what_changes_by_name(running: Running) -> None:
    feed = running.read("/streams/events")
    only = running.read("/streams/events?project=app")
    running.finish()

    def of_run(reader: Reader) -> Heard:
        while True:
            event = reader.next()
            assert event is not None
            if event.name == "change" and event.data["run"] == running.number and event.data["kind"] == "run-state":
                return event

    for reader in (feed, only):
        change = of_run(reader)
        assert change.data["project"] == "app"
        assert change.id == str(change.data["id"])
    resumed = running.read("/streams/events", str(int(only.last_id) - 1))
    assert resumed.until("change")[-1].id == only.last_id


# --- who may read ----------------------------------------------------------------------------------------------------


def test_nobody_reads_without_a_living_session_or_token(running: Running) -> None:
    for path in (running.path, "/streams/events"):
        for headers in (
            {"Authorization": ""},
            {"Authorization": "Bearer x"},
            {"Authorization": "Basic eDp5"},
            {"Authorization": "", "Cookie": "kf=made-up"},
            {"Authorization": "", "Cookie": "kf=made-up; __Host-kf=made-up"},
        ):
            assert running.read(path, **headers).status == 401


def test_what_is_not_there_and_what_may_not_be_seen_look_alike(running: Running) -> None:
    for path in ("/streams/runs/nothing/1/log", "/streams/runs/app/999999/log", "/streams/events?project=nothing"):
        assert running.read(path).status == 404
    for path in ("/streams", "/streams/", "/streams/runs/app/0/log", "/streams/runs/app/x/log", "/streams/runs/app/1"):
        assert running.read(path).status == 404


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "evil.example:7070"},
        {"Host": "127.0.0.1.evil.example"},
        {"Host": "localhost.evil.example"},
        {"Host": "[::1"},
        {"Host": "evil.example@127.0.0.1"},
    ],
)
def test_t06_a_foreign_host_name_is_refused(running: Running, headers: dict[str, str]) -> None:
    for path in (running.path, "/streams/events"):
        assert running.read(path, **headers).status == 400


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "https://localhost"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "http://evil.example", "Sec-Fetch-Site": "same-origin"},
    ],
)
def test_t06_another_site_cannot_use_the_cookie(running: Running, headers: dict[str, str]) -> None:
    for path in (running.path, "/streams/events"):
        assert running.read(path, Authorization="", Cookie="kf=x", **headers).status == 403
