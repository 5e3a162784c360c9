"""P19, F12: a full disk corrupts nothing, acknowledges nothing, and is over as soon as there is room."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from keepflow import errors
from keepflow.store import settings
from keepflow.store.database import Database
from keepflow.store.writer import Writer
from tests.real.parts import need, need_root

CYCLES = 20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 8 MB."""
    need("mount", "umount")
    need_root()
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "keepflow-test", str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


@pytest.mark.real
def test_p19_twenty_times_full_and_free_again(small_disk: Path) -> None:
    database = Database(f"sqlite:///{small_disk}/keepflow.db")
    database.migrate()
    writer = Writer(database)
    writer.start()
    acknowledged: list[str] = []
    for cycle in range(CYCLES):
        _fill(small_disk / "ballast")
        refused = 0
        for number in range(40):
            key = f"{cycle}-{number}"
            try:
                writer.call(lambda tx, key=key: settings.put(tx.conn, key, "x" * 20_000))
                acknowledged.append(key)
            except errors.OutOfSpace:
                refused += 1
        assert refused > 0, "the disk was full"
        (small_disk / "ballast").unlink()
        writer.call(lambda tx, key=f"{cycle}-free": settings.put(tx.conn, key, 1))
        acknowledged.append(f"{cycle}-free")
        with database.read() as conn:
            assert [key for key in acknowledged if settings.get(conn, key) is None] == []
        for key in acknowledged:  # make room for the next cycle
            writer.call(lambda tx, key=key: settings.drop(tx.conn, key))
        acknowledged.clear()
    assert writer.alive
    writer.close()
    database.check()
    database.dispose()


def _fill(ballast: Path) -> None:
    """Take all the room there is."""
    with ballast.open("wb", buffering=0) as file:
        for size in (65536, 4096, 1):
            try:
                while True:
                    file.write(os.urandom(size))
            except OSError:
                continue
