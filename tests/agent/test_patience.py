"""A master that is being restarted is waited for, by a job that fetches its code; one that says no is not."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from keepflow import errors
from keepflow.agent.lanes import Lanes, Source
from keepflow.agent.patience import Patience, answers
from keepflow.tools.brake import Brake
from tests.real.waiting import free_port, wait_until
from tests.tools import smart_http
from tests.tools.repositories import bare, commit


class Fetching:
    """A lane of a job, at a master on a port where nobody may be yet."""

    def __init__(self, place: Path, most: float) -> None:
        self.lanes, self.port, self.said = Lanes(place / "lanes"), free_port(), list[str]()
        self.master = f"http://127.0.0.1:{self.port}"
        self.repository = bare(place / "repository")
        self.sha = commit(self.repository, {"a": "1"})
        self.patience = Patience(self.master, self.said.append, most)

    def fetch(self, credential: str = "t") -> str:
        """Fetch and return what the one file holds."""
        source = Source(f"{self.master}/repository", self.sha, credential, patience=self.patience)
        with self.lanes.hold("shop", "protected") as place:
            return (self.lanes.fill(place, source) / "a").read_text()

    @contextmanager
    def served(self) -> Iterator[smart_http.GitServer]:
        """Run the master."""
        with smart_http.serve(self.repository, expects="Bearer t", port=self.port) as server:
            yield server

    def await_wait(self) -> None:
        """Wait until the job says that it waits."""
        wait_until(lambda: self.said, 30, "a word about waiting")


def test_code_is_fetched_once_the_master_is_back(tmp_path: Path) -> None:
    job = Fetching(tmp_path, most=60)
    with ThreadPoolExecutor() as beside:
        fetched = beside.submit(job.fetch)
        job.await_wait()
        with job.served():
            assert fetched.result(60) == "1"
    assert job.said == ["── the master cannot be reached; waits for it, 1m at most"]


def test_a_master_that_does_not_come_back_is_told_in_words(tmp_path: Path) -> None:
    job = Fetching(tmp_path, most=0.3)
    with pytest.raises(errors.Unavailable) as caught:
        job.fetch()
    assert caught.value.message.startswith("the code could not be fetched; it was waited for, 300ms: ")


def test_a_master_that_says_no_is_asked_no_more_than_a_few_times(tmp_path: Path) -> None:
    job = Fetching(tmp_path, most=600)
    with job.served() as server, pytest.raises(errors.CommandFailed):
        job.fetch("wrong")
    assert job.said == []
    assert len([line for line in server.requests if "info/refs" in line]) <= 8


def test_r57_a_job_that_waits_for_its_master_is_stopped_at_once(tmp_path: Path) -> None:
    job, brake = Fetching(tmp_path, most=600), Brake()

    def braked() -> None:
        with brake.applied():
            job.fetch()

    with ThreadPoolExecutor() as beside:
        fetching = beside.submit(braked)
        job.await_wait()
        began = time.monotonic()
        brake.pull()
        with pytest.raises(errors.Stopped):
            fetching.result(30)
    assert time.monotonic() - began < 10


def test_a_proxy_before_a_master_that_is_away_is_no_answer(tmp_path: Path) -> None:
    class Away(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(503)

    job = Fetching(tmp_path, most=1)
    assert not answers(job.master)
    with HTTPServer(("127.0.0.1", 0), Away) as proxy, ThreadPoolExecutor() as beside:
        beside.submit(proxy.handle_request)
        assert not answers(f"http://127.0.0.1:{proxy.server_port}")
    with job.served():
        assert answers(job.master)
