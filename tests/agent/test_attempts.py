"""Attempts are taken once, kept until the master holds everything of them, and remembered after that."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from keepflow.agent.attempts import Attempts
from keepflow.agent.seen import REMEMBERED, Seen
from keepflow.wire import messages


def order(fence: int, **more: Any) -> messages.RunJob:
    return messages.RunJob(
        **{
            "fence": fence,
            "project": "shop",
            "run": 1,
            "flow": "dev",
            "job": "build",
            "attempt": 1,
            "sha": "a" * 40,
            "ref": "refs/heads/dev",
            "trust": "protected",
            "code_path": "/git/shop",
            "token": "kf_job_secret",
            "env": {},
            "steps": (),
            **more,
        }
    )


def test_a_fence_is_taken_once(tmp_path: Path) -> None:
    attempts = Attempts(tmp_path)
    assert attempts.add(order(7)) is not None
    assert attempts.add(order(7)) is None
    assert Attempts(tmp_path).add(order(7)) is None


def test_an_attempt_is_found_again_after_a_restart(tmp_path: Path) -> None:
    first = Attempts(tmp_path).add(order(7, env={"A": "b"}))
    assert first is not None
    first.log.append(b"some bytes")
    first.log.acknowledge(4)
    again = Attempts(tmp_path).get(7)
    assert again is not None
    assert again.order == first.order
    assert (again.mark, again.nonce) == (first.mark, first.nonce)
    assert (again.log.size, again.log.acked) == (10, 4)
    assert again.log.read(4, 3) == b" by"


def test_the_order_with_its_secrets_is_for_nobody_else(tmp_path: Path) -> None:
    Attempts(tmp_path).add(order(7))
    place = tmp_path / "7"
    assert place.stat().st_mode & 0o077 == 0
    assert all(file.stat().st_mode & 0o077 == 0 for file in place.iterdir())


def test_an_attempt_goes_when_end_and_log_are_with_the_master_and_is_never_taken_again(tmp_path: Path) -> None:
    attempts = Attempts(tmp_path)
    attempt = attempts.add(order(7))
    assert attempt is not None
    attempt.log.append(b"log")
    attempts.sweep(confirmed=99)
    assert attempts.get(7) is not None, "it has not ended"
    attempt.end(12)
    attempts.sweep(confirmed=99)
    assert attempts.get(7) is not None, "its log is not with the master"
    attempt.log.acknowledge(3)
    attempts.sweep(confirmed=11)
    assert attempts.get(7) is not None, "its end is not with the master"
    attempts.sweep(confirmed=12)
    assert attempts.get(7) is None
    assert not (tmp_path / "7").exists()
    assert attempts.add(order(7)) is None
    assert Attempts(tmp_path).add(order(7)) is None
    assert Attempts(tmp_path).highest == 7


def test_fences_that_were_seen_outlive_a_torn_line_and_the_oldest_are_forgotten(tmp_path: Path) -> None:
    seen = Seen(tmp_path / "seen")
    for first in range(1, 3 * REMEMBERED, 100):
        seen.add(range(first, first + 100))
    last = seen.highest
    with (tmp_path / "seen").open("a") as file:
        file.write("12")  # of 1234…: a crash tore it
    again = Seen(tmp_path / "seen")
    assert again.highest == last
    assert last - REMEMBERED + 1 in again
    assert 12 not in again
    assert 1 not in again
    again.add([last + 1])
    assert last + 1 in Seen(tmp_path / "seen")


def test_a_directory_without_an_order_is_no_attempt(tmp_path: Path) -> None:
    (tmp_path / "8").mkdir()
    attempts = Attempts(tmp_path)
    assert list(attempts) == []
    assert attempts.add(order(8)) is not None


def test_a_log_nobody_wants_goes_after_a_week(tmp_path: Path) -> None:
    attempts = Attempts(tmp_path)
    attempt = attempts.add(order(7))
    assert attempt is not None
    attempt.log.append(b"log")
    attempt.end(1)
    eight_days_ago = (attempt.directory / "ended").stat().st_mtime - 8 * 86400
    os.utime(attempt.directory / "ended", (eight_days_ago, eight_days_ago))
    attempts.sweep(confirmed=1)
    assert attempts.get(7) is None


def test_a_master_that_holds_more_than_this_disk_is_believed(tmp_path: Path) -> None:
    attempt = Attempts(tmp_path).add(order(7))
    assert attempt is not None
    attempt.log.append(b"12345")
    attempt.log.agree(9)  # a power cut took bytes that were sent already
    attempt.log.append(b"more")
    assert (attempt.log.acked, attempt.log.size) == (9, 13)
    assert attempt.log.read(9, 100) == b"more"


def test_a_master_that_holds_less_is_sent_the_rest(tmp_path: Path) -> None:
    attempt = Attempts(tmp_path).add(order(7))
    assert attempt is not None
    attempt.log.append(b"12345")
    attempt.log.acknowledge(5)
    attempt.log.agree(2)
    assert attempt.log.acked == 2


def test_an_attempt_that_cannot_be_read_does_not_stop_the_agent(tmp_path: Path) -> None:
    for fence, text in enumerate(("{", "{}", '{"mark": "m", "nonce": "n", "order": {"fence": 1}}'), 1):
        (tmp_path / str(fence)).mkdir()
        (tmp_path / str(fence) / "attempt.json").write_text(text)
    attempts = Attempts(tmp_path)
    assert list(attempts) == []
    assert sorted(path.name for path in tmp_path.glob("*[0-9]")) == [f"unreadable-{fence}" for fence in (1, 2, 3)]
