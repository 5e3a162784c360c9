"""Attempts are taken once, kept until the master holds everything of them, and remembered after that."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from keepflow.agent.attempts import Attempts
from keepflow.agent.seen import REMEMBERED, Seen
from keepflow.agent.taken import Taken
from keepflow.errors import OutOfSpace
from keepflow.wire import messages
from tests.real.waiting import wait_until


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
    wait_until(lambda: not (tmp_path / "7").exists(), 10, "its directory is gone")
    assert (tmp_path / "taken").read_bytes() == b"", "nothing that it was lent stays on the disk"
    assert attempts.add(order(7)) is None
    assert Attempts(tmp_path).add(order(7)) is None
    assert Attempts(tmp_path).highest == 7


def test_a_power_cut_takes_no_attempt_that_was_synced(tmp_path: Path) -> None:
    """What was not synced may be gone after it, whole or in part: here it is."""
    attempts = Attempts(tmp_path)
    made = {fence: attempts.add(order(fence, env={"A": str(fence)})) for fence in (7, 8, 9)}
    attempts.sync()
    (tmp_path / "7" / "attempt.json").write_text("")
    (tmp_path / "8" / "attempt.json").unlink()
    shutil.rmtree(tmp_path / "9")
    with (tmp_path / "taken").open("ab") as file:
        file.write(b'12345678 10 {"mark": "')  # it was being written, and nobody was told of it
    again = Attempts(tmp_path)
    for fence, attempt in made.items():
        found = again.get(fence)
        assert attempt is not None
        assert found is not None
        assert (found.order, found.mark, found.nonce) == (attempt.order, attempt.mark, attempt.nonce)
    assert again.add(order(10)) is not None


def test_an_attempt_that_was_being_removed_does_not_come_back(tmp_path: Path) -> None:
    attempts = Attempts(tmp_path)
    attempts.add(order(7))
    kept = shutil.copytree(tmp_path / "7", tmp_path / "copy")
    taken = (tmp_path / "taken").read_bytes()
    attempt = attempts.get(7)
    assert attempt is not None
    attempt.end(1)
    attempts.sweep(confirmed=1)
    wait_until(lambda: not (tmp_path / "7").exists(), 10, "its directory is gone")
    kept.rename(tmp_path / "7")  # a power cut came before the removal was on the disk
    (tmp_path / "taken").write_bytes(taken)
    again = Attempts(tmp_path)
    assert list(again) == []
    assert again.add(order(7)) is None
    assert not (tmp_path / "7").exists()


def test_a_full_disk_takes_nothing_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = Attempts(tmp_path)
    assert attempts.add(order(7)) is not None
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[: len(data) // 2]))
    with pytest.raises(OutOfSpace):
        attempts.add(order(8))
    monkeypatch.setattr(os, "write", write)
    assert [found.fence for found in Attempts(tmp_path)] == [7]
    assert attempts.add(order(8)) is not None
    assert sorted(found.fence for found in Attempts(tmp_path)) == [7, 8]


def test_orders_that_nobody_needs_any_more_are_cut_away(tmp_path: Path) -> None:
    taken = Taken(tmp_path / "taken")
    taken.add(1, "first")
    for fence in range(2, 1000):
        taken.add(fence, "x" * 1000)
        taken.forget([fence])
    assert (tmp_path / "taken").stat().st_size < 300_000
    taken.add(1000, "last")
    assert dict(Taken(tmp_path / "taken").texts) | {1: "first", 1000: "last"} == dict(Taken(tmp_path / "taken").texts)


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
