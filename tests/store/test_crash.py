"""F1, F2, P1 at the level of the store: kill -9 at any moment loses nothing that was acknowledged."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from multiprocessing import get_context
from pathlib import Path

import pytest
from sqlalchemy import text

from keepflow.store import settings
from keepflow.store.database import Database
from keepflow.store.writer import Writer
from keepflow.tools import failpoints

CYCLES = 50


def test_f01_fifty_kills_lose_no_acknowledged_row_and_damage_no_file(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/keepflow.db"
    Database(url).migrate()
    generator = random.Random(7)  # noqa: S311 - spreads the moments of the kills, guards nothing
    acknowledged: set[int] = set()
    for cycle in range(CYCLES):
        acknowledged |= _kill_one(url, cycle * 1_000_000, generator.uniform(0.01, 0.1))
    database = Database(url)
    with database.read() as conn:
        stored = {int(key.removeprefix("row-")) for key in conn.execute(text("SELECT key FROM settings")).scalars()}
    assert acknowledged - stored == set()
    assert len(acknowledged) > CYCLES * 4
    database.check()
    database.dispose()


@pytest.mark.parametrize(("place", "stored"), [("store.before-commit", False), ("store.after-commit", True)])
def test_f01_a_kill_around_a_commit_leaves_all_of_it_or_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, stored: bool
) -> None:
    url = f"sqlite:///{tmp_path}/keepflow.db"
    Database(url).migrate()
    monkeypatch.setenv(failpoints.VARIABLE, f"{place}=kill")
    reading, writing = os.pipe()
    process = get_context("fork").Process(target=_store_without_end, args=(url, 0, writing))
    process.start()
    os.close(writing)
    process.join(30)
    assert process.exitcode == -signal.SIGKILL
    with os.fdopen(reading, "rb") as said:
        assert said.read() == b"", "nothing was acknowledged"
    database = Database(url)
    with database.read() as conn:
        assert bool(conn.execute(text("SELECT count(*) FROM settings")).scalar()) is stored
    database.dispose()


def _kill_one(url: str, start: int, after: float) -> set[int]:
    """Let one process store rows, kill it a little after its first one, and return what it said was stored."""
    reading, writing = os.pipe()
    process = get_context("fork").Process(target=_store_without_end, args=(url, start, writing))
    process.start()
    os.close(writing)
    with os.fdopen(reading, "rb") as said:
        first = said.readline()
        time.sleep(after)  # not a wait for anything: the moment of the kill is what the test varies
        os.kill(process.pid or 0, signal.SIGKILL)
        rest = said.read()
    process.join(10)
    return {int(line) for line in (first + rest).split(b"\n")[:-1]}  # the last one may be cut


def _store_without_end(url: str, start: int, say: int) -> None:
    """Store rows from four threads, and say each number as soon as it was acknowledged."""
    database = Database(url)
    database.lock()
    writer = Writer(database)
    writer.start()
    threads = [
        threading.Thread(target=_store, args=(writer, range(start + n, start + 999_999, 4), say)) for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _store(writer: Writer, numbers: range, say: int) -> None:
    for number in numbers:
        writer.call(lambda tx, key=f"row-{number}": settings.put(tx.conn, key, "x" * 3000))
        os.write(say, f"{number}\n".encode())
