"""Sealing at rest."""

from __future__ import annotations

import base64
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepflow import errors
from keepflow.crypto.vault import Vault

VAULT = Vault([os.urandom(32)])


@given(st.binary(max_size=500), st.text(max_size=50))
def test_what_was_sealed_for_a_place_opens_there(value: bytes, place: str) -> None:
    assert VAULT.unseal(VAULT.seal(value, place), place) == value


@given(st.binary(min_size=1, max_size=60), st.text(max_size=20), st.text(max_size=20))
def test_a_value_moved_to_another_place_does_not_open(value: bytes, here: str, there: str) -> None:
    if here != there:
        with pytest.raises(errors.BadSeal):
            VAULT.unseal(VAULT.seal(value, here), there)


def test_every_changed_bit_is_noticed() -> None:
    blob = VAULT.seal(b"hunter22", "project/a/token")
    for bit in range(len(blob) * 8):
        changed = bytearray(blob)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(errors.BadSeal):
            VAULT.unseal(bytes(changed), "project/a/token")


@given(st.binary(max_size=80))
def test_whatever_bytes_arrive_the_only_error_is_a_bad_seal(blob: bytes) -> None:
    with pytest.raises(errors.BadSeal):
        VAULT.unseal(blob, "x")
    with pytest.raises(errors.BadSeal):
        VAULT.unseal(VAULT.seal(b"", "x")[:9] + blob[:40], "y")


def test_the_value_is_not_readable_in_the_blob_and_two_seals_differ() -> None:
    first, second = VAULT.seal(b"hunter22", "x"), VAULT.seal(b"hunter22", "x")
    assert b"hunter22" not in first
    assert first != second


def test_a_key_file_is_made_once_and_private(tmp_path: Path) -> None:
    path = tmp_path / "master.key"
    blob = Vault.open(path, create=True).seal(b"value", "x")
    assert path.stat().st_mode & 0o777 == 0o600
    assert Vault.open(path, create=True).unseal(blob, "x") == b"value"
    assert Vault.open(path, create=False).unseal(blob, "x") == b"value"


def test_f27_a_missing_master_key_fails_closed_and_names_the_path(tmp_path: Path) -> None:
    with pytest.raises(errors.Unavailable, match=r"master\.key") as caught:
        Vault.open(tmp_path / "master.key", create=False)
    assert caught.value.code == "key-missing"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"\n", b"not base64!", base64.b64encode(b"short"), b"\xff\xfe"])
@pytest.mark.parametrize("create", [False, True])
def test_f27_a_damaged_key_file_is_never_replaced(tmp_path: Path, content: bytes, create: bool) -> None:
    path = tmp_path / "master.key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(errors.UsageError, match=r"master\.key"):
        Vault.open(path, create=create)
    assert path.read_bytes() == content


def test_a_key_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "master.key"
    Vault.open(path, create=True)
    path.chmod(0o604)
    with pytest.raises(errors.UsageError, match="chmod 600"):
        Vault.open(path, create=False)


def test_two_processes_that_create_the_key_at_once_hold_the_same_key(tmp_path: Path) -> None:
    path = tmp_path / "master.key"
    with ThreadPoolExecutor(8) as pool:
        vaults = list(pool.map(lambda _: Vault.open(path, create=True), range(8)))
    blobs = [vault.seal(b"v", "x") for vault in vaults]
    assert {vaults[0].unseal(blob, "x") for blob in blobs} == {b"v"}


def test_after_a_rotation_old_values_open_and_new_ones_use_the_new_key(tmp_path: Path) -> None:
    path = tmp_path / "master.key"
    old = Vault.open(path, create=True)
    before = old.seal(b"old value", "x")
    path.write_bytes(base64.b64encode(os.urandom(32)) + b"\n" + path.read_bytes())
    rotated = Vault.open(path, create=False)
    after = rotated.seal(b"new value", "x")
    assert rotated.unseal(before, "x") == b"old value"
    assert rotated.unseal(after, "x") == b"new value"
    with pytest.raises(errors.BadSeal, match="not in the key file"):
        old.unseal(after, "x")
