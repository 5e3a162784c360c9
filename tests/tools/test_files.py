"""Files that are whole or absent."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from keepflow import errors
from keepflow.tools.files import read_private, write_atomic


def test_a_file_is_replaced_whole_with_exactly_the_mode(tmp_path: Path) -> None:
    path = tmp_path / "state"
    before = os.umask(0o077)
    try:
        write_atomic(path, b"one")
        assert path.stat().st_mode & 0o777 == 0o644
        write_atomic(path, b"two", 0o600)
    finally:
        os.umask(before)
    assert path.read_bytes() == b"two"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["state"]


def test_a_reader_that_opened_the_old_file_keeps_it(tmp_path: Path) -> None:
    path = tmp_path / "state"
    write_atomic(path, b"old")
    with path.open("rb") as file:
        write_atomic(path, b"new")
        assert file.read() == b"old"


def test_without_replace_an_existing_file_is_never_touched(tmp_path: Path) -> None:
    path = tmp_path / "key"
    write_atomic(path, b"first", replace=False)
    with pytest.raises(FileExistsError):
        write_atomic(path, b"second", replace=False)
    assert path.read_bytes() == b"first"
    assert [entry.name for entry in tmp_path.iterdir()] == ["key"]


def test_a_failed_write_leaves_the_old_file_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "state"
    write_atomic(path, b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(errors.OutOfSpace, match="state"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["state"]


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o440])
def test_a_private_file_is_read(tmp_path: Path, mode: int) -> None:
    write_atomic(tmp_path / "secret", b"x", mode)
    assert read_private(tmp_path / "secret") == b"x"


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o620, 0o602, 0o601])
def test_a_private_file_that_others_can_use_is_refused(tmp_path: Path, mode: int) -> None:
    write_atomic(tmp_path / "secret", b"x", mode)
    with pytest.raises(errors.UsageError, match="chmod 600") as caught:
        read_private(tmp_path / "secret")
    assert caught.value.code == "key-exposed"


def test_a_missing_private_file_names_its_path(tmp_path: Path) -> None:
    with pytest.raises(errors.Unavailable, match="secret"):
        read_private(tmp_path / "secret")
