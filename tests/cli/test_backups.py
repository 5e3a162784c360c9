"""Backup and restore as a person does them: one file, one key, an empty home."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from keepflow.store import runs
from tests.cli.conftest import Keepflow
from tests.web import story as stories


@pytest.fixture
def files(keepflow: Keepflow, tmp_path: Path) -> tuple[Path, Path]:
    """A backup of the served master, and its key."""
    backup, key = tmp_path / "keepflow.backup", tmp_path / "master.key"
    assert keepflow("backup", str(backup)).code == 0
    assert keepflow("backup", "--export-key", str(key)).code == 0
    return backup, key


def test_a_backup_is_private_and_whole_and_has_no_key_in_it(files: tuple[Path, Path]) -> None:
    backup, key = files
    assert [path.stat().st_mode & 0o777 for path in files] == [0o600, 0o600]
    with tarfile.open(backup) as tar:
        names = tar.getnames()
    assert names[0] == "keepflow.db"
    assert names[-1] == "backup.json"
    assert {"order.key.sealed", "logs/keepwork/1/build.1.log"} <= set(names)
    assert key.read_bytes().strip() not in backup.read_bytes()


def test_a_restored_home_is_the_master_again_with_numbers_nobody_has_given_out(
    keepflow: Keepflow, files: tuple[Path, Path], tmp_path: Path
) -> None:
    backup, key = files
    home = tmp_path / "home"
    said = keepflow("restore", str(backup), "--key", str(key), "--home", str(home))
    assert said.code == 0, said.err
    assert "is the master of 20" in said.err
    assert home.stat().st_mode & 0o777 == 0o700
    with stories.open_master(home) as master, master.database.read() as conn:
        newest = runs.page(conn, limit=1)[0]
        story = stories.Story(master)
        assert story.project().next_number == newest.number + 1 + 1000
    again = keepflow("restore", str(backup), "--key", str(key), "--home", str(home))
    assert (again.code, "[home-used]" in again.err) == (7, True)


def test_what_is_there_is_never_written_over(keepflow: Keepflow, files: tuple[Path, Path]) -> None:
    for argv in (("backup", str(files[0])), ("backup", "--export-key", str(files[1]))):
        said = keepflow(*argv)
        assert (said.code, "[exists]" in said.err) == (7, True)


def test_a_place_that_cannot_be_written_is_said_in_words(keepflow: Keepflow, tmp_path: Path) -> None:
    for argv in (("backup",), ("backup", "--export-key")):
        said = keepflow(*argv, str(tmp_path / "missing" / "file"))
        assert (said.code, "[unwritable]" in said.err) == (2, True), said.err
        assert "Traceback" not in said.err


@pytest.mark.parametrize("wrong", ["missing", "cut", "not a backup"])
def test_a_file_that_is_no_backup_is_refused_in_words(
    keepflow: Keepflow, files: tuple[Path, Path], tmp_path: Path, wrong: str
) -> None:
    backup, key = files
    if wrong == "missing":
        backup.unlink()
    else:
        backup.write_bytes(backup.read_bytes()[:100_000] if wrong == "cut" else b"hello\n" * 200)
    said = keepflow("restore", str(backup), "--key", str(key), "--home", str(tmp_path / "home"))
    assert (said.code, "[bad-backup]" in said.err) == (2, True), said.err
    assert not (tmp_path / "home" / "keepflow.db").exists()


def test_a_key_that_others_may_read_is_not_used(keepflow: Keepflow, files: tuple[Path, Path], tmp_path: Path) -> None:
    backup, key = files
    key.chmod(0o644)
    said = keepflow("restore", str(backup), "--key", str(key), "--home", str(tmp_path / "home"))
    assert (said.code, "chmod 600" in said.err) == (2, True)
