"""Storms of webhooks at a real master process: what was sent, what was built, what is told in the end (P2, F11, F26).

The oracle is the test's own list of what it sent, and the list of runs that the master gives everybody. The short form
sends less; with --long it is 500 pushes in a minute, and 10,000 posts.
"""

from __future__ import annotations

import contextlib
import http.client
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed

from keepflow.wire import messages
from tests.gateway.played import Link, Played
from tests.processes import MasterProcess, hook_headers, push_body
from tests.real.waiting import wait_until
from tests.tools import repositories
from tests.tools.repositories import git

FLOW = "version: 1\nflows:\n  dev:\n    on: {push: dev}\n    concurrency: %s\n    steps: [{run: make}]\n"
SENDERS = 16


class Storm:
    """A master with one project, whose branch `dev` has as many commits as are asked for."""

    def __init__(self, directory: Path, commits: int, concurrency: str) -> None:
        self.repository = repositories.bare(directory / "app.git")
        first = repositories.commit(self.repository, {".keepflow.yml": FLOW % concurrency}, ref="dev")
        tree = git(self.repository, "rev-parse", f"{first}^{{tree}}")
        self.shas = [first]
        for number in range(commits - 1):
            self.shas.append(
                git(self.repository, "commit-tree", tree, "-p", self.shas[-1], "-m", f"change {number}", data=b"")
            )
        self.point_to(self.shas[-1])
        self.master = MasterProcess(directory / "home").start()
        self.master.apply({"app": {"repo": str(self.repository)}})

    def point_to(self, sha: str) -> None:
        """Move the branch."""
        git(self.repository, "update-ref", "refs/heads/dev", sha)

    def post(self, connection: http.client.HTTPConnection, number: int) -> int:
        """Tell of one push over a kept connection and return the status."""
        before = self.shas[number - 1] if number else "0" * 40
        body = push_body(sha=self.shas[number], before=before)
        connection.request("POST", "/hooks/app", body, hook_headers(body, f"delivery-{number}"))
        answer = connection.getresponse()
        answer.read()
        return answer.status

    def connection(self) -> http.client.HTTPConnection:
        """Open a connection that is kept."""
        return http.client.HTTPConnection("127.0.0.1", self.master.port, timeout=60)

    def runs(self) -> list[dict[str, object]]:
        """List every run, newest first, page by page."""
        found, before = [], ""
        while True:
            page = self.master.api("GET", f"/projects/app/runs?limit=200{before}").json
            found += page["items"]
            if page["next"] is None:
                return found
            before = f"&before={page['next']}"

    def unhandled(self) -> bool:
        """Say whether some delivery waits for its decision."""
        page = self.master.api("GET", "/projects/app/deliveries?limit=200").json
        return any(not found["handled"] for found in page["items"])


@pytest.fixture
def storm(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Storm]:
    commits, concurrency = request.param(request.config.getoption("--long"))
    made = Storm(tmp_path, commits, concurrency)
    yield made
    made.master.close()


def _hundred(long: bool) -> tuple[int, str]:
    return (100 if long else 20), "queue"


@pytest.mark.parametrize("storm", [_hundred], indirect=True, ids=["deliveries"])
def test_p02_every_delivery_that_is_posted_a_hundred_times_makes_one_run(
    storm: Storm, request: pytest.FixtureRequest, numbers: Callable[..., None]
) -> None:
    times = 100 if request.config.getoption("--long") else 25
    posts = list(range(len(storm.shas))) * times
    random.Random(5).shuffle(posts)  # noqa: S311 - an order, not a secret
    statuses: list[int] = []

    def send(part: list[int]) -> None:
        connection = storm.connection()
        statuses.extend([storm.post(connection, number) for number in part])
        connection.close()

    threads = [threading.Thread(target=send, args=(posts[n::SENDERS],)) for n in range(SENDERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(600)
    assert len(statuses) == len(posts)
    assert (statuses.count(202), statuses.count(200)) == (len(storm.shas), len(posts) - len(storm.shas))
    wait_until(lambda: not storm.unhandled(), 120, "every delivery is decided")
    runs = storm.runs()
    assert sorted(str(run["sha"]) for run in runs) == sorted(storm.shas)
    numbers(posts=len(posts), deliveries=len(storm.shas), runs=len(runs))


class Builder:
    """An agent whose builds take as long as the test says; it keeps what it was given."""

    def __init__(self, master: MasterProcess) -> None:
        self.link: Link = Played.joined(master, "local").link(slots=1)
        self.built: list[str] = []
        self.under_way = threading.Event()
        self._running: tuple[int, ...] = ()
        self._ends = threading.Semaphore(0)
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()
        self._over = threading.Event()
        self._heart = threading.Thread(target=self._beat, daemon=True)
        self._heart.start()

    def _beat(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            while not self._over.wait(5):
                self.link.beat(running=self._running)

    def _work(self) -> None:
        with contextlib.suppress(ConnectionClosed, TimeoutError):
            while True:
                self._build(self.link.take_order(600).body)

    def _build(self, order: object) -> None:
        if isinstance(order, messages.RunJob):
            self.built.append(order.sha)
            self.link.report(messages.JobStarted(fence=order.fence, at=time.time_ns() // 1000))
            self._running = (order.fence,)
            self.under_way.set()
            self._ends.acquire()
            self._running = ()
            self.link.report(messages.JobFinished(fence=order.fence, at=time.time_ns() // 1000, state="succeeded"))

    def close(self) -> None:
        """Leave."""
        self._over.set()
        self._heart.join(10)
        self.link.close()
        self._thread.join(10)

    def end_one(self) -> None:
        """Let the build that is under way end, or the next one as soon as it has begun."""
        self._ends.release()


def _five_hundred(long: bool) -> tuple[int, str]:
    return (500 if long else 60), "latest"


@pytest.mark.parametrize("storm", [_five_hundred], indirect=True, ids=["pushes"])
def test_f26_of_five_hundred_pushes_in_a_minute_three_at_most_are_built_and_the_head_is(
    storm: Storm, request: pytest.FixtureRequest, numbers: Callable[..., None]
) -> None:
    """A build takes half a minute here, or half of what the short form takes: it ends when half has been pushed."""
    pause = 60 / len(storm.shas) if request.config.getoption("--long") else 0.0
    storm.point_to(storm.shas[0])
    builder = Builder(storm.master)
    request.addfinalizer(builder.close)
    connection = storm.connection()
    request.addfinalizer(connection.close)
    begun = time.monotonic()
    for number, sha in enumerate(storm.shas):
        storm.point_to(sha)
        assert storm.post(connection, number) == 202
        if number == 0:
            assert builder.under_way.wait(60), "the first push is built at once"
        if number == len(storm.shas) // 2:
            builder.end_one()
        remaining = begun + (number + 1) * pause - time.monotonic()
        if remaining > 0:
            time.sleep(remaining)  # the pace of the storm, not a wait for something
    took = time.monotonic() - begun
    wait_until(lambda: not storm.unhandled(), 120, "every delivery is decided")
    for _ in range(3):
        builder.end_one()
    wait_until(
        lambda: all(run["state"] in ("succeeded", "superseded") for run in storm.runs()), 60, "every run has ended"
    )
    runs = storm.runs()
    ended = {str(run["sha"]): run["state"] for run in runs}
    assert len(runs) == len(storm.shas), "every push is a run that people see"
    assert ended[storm.shas[-1]] == "succeeded"
    assert builder.built[-1] == storm.shas[-1]
    assert len(builder.built) <= 3, builder.built
    assert [str(run["state"]) for run in runs].count("succeeded") == len(builder.built)
    numbers(pushes=len(storm.shas), builds=len(builder.built), seconds=[round(took, 1)])


@pytest.mark.parametrize("storm", [_five_hundred], indirect=True, ids=["pushes"])
def test_f11_hooks_in_any_order_and_forced_pushes_end_at_the_right_head(
    storm: Storm, request: pytest.FixtureRequest, numbers: Callable[..., None]
) -> None:
    connection, order = storm.connection(), list(range(len(storm.shas)))
    request.addfinalizer(connection.close)
    random.Random(6).shuffle(order)  # noqa: S311 - an order, not a secret
    for number in order:
        assert storm.post(connection, number) == 202
    wait_until(lambda: not storm.unhandled(), 120, "every delivery is decided")
    live = [run for run in storm.runs() if run["state"] != "superseded"]
    assert [run["sha"] for run in live] == [storm.shas[-1]]
    # back to an older commit by force, told before and after a hook that is late
    back = storm.shas[3]
    storm.point_to(back)
    body = push_body(sha=back, before=storm.shas[-1], forced=True)
    connection.request("POST", "/hooks/app", body, hook_headers(body, "forced"))
    connection.getresponse().read()
    late = push_body(sha=storm.shas[-1], before=storm.shas[-2])
    connection.request("POST", "/hooks/app", late, hook_headers(late, "late"))
    connection.getresponse().read()
    wait_until(lambda: not storm.unhandled(), 120, "every delivery is decided")
    live = [run for run in storm.runs() if run["state"] != "superseded"]
    assert [run["sha"] for run in live] == [back]
    numbers(pushes=len(order) + 2)
