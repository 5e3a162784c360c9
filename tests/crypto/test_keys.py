"""Ed25519 keys: form, files, signatures."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from keepflow import errors
from keepflow.crypto.keys import PrivateKey, PublicKey, generate

KEY = generate()


@given(st.binary(max_size=200))
def test_a_key_verifies_what_it_signed(message: bytes) -> None:
    KEY.public.verify(KEY.sign(message), message)


@given(st.binary(max_size=100), st.binary(max_size=100))
def test_nothing_but_the_signature_of_the_message_verifies(message: bytes, noise: bytes) -> None:
    with pytest.raises(errors.BadSignature):
        KEY.public.verify(noise, message)
    with pytest.raises(errors.BadSignature):
        KEY.public.verify(KEY.sign(message), message + b"x")
    with pytest.raises(errors.BadSignature):
        generate().public.verify(KEY.sign(message), message)


def test_a_public_key_survives_its_text_and_names_itself_by_the_hash_of_its_bytes() -> None:
    public = KEY.public
    assert PublicKey.parse(public.text) == public
    assert public.text.startswith("ed25519:")
    assert public.key_id == "sha256:" + hashlib.sha256(public.raw).hexdigest()


@given(st.text())
def test_a_text_that_is_no_key_is_an_intentional_error(text: str) -> None:
    with pytest.raises(errors.UsageError):
        PublicKey.parse(text)
    with pytest.raises(errors.UsageError):
        PublicKey.parse("ed25519:" + text)


def test_a_saved_key_is_private_and_loads_as_the_same_key(tmp_path: Path) -> None:
    path = tmp_path / "agent.key"
    KEY.save(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert PrivateKey.load(path).public == KEY.public
    assert [entry.name for entry in tmp_path.iterdir()] == ["agent.key"]


def test_saving_never_overwrites_a_key(tmp_path: Path) -> None:
    KEY.save(tmp_path / "k")
    with pytest.raises(FileExistsError):
        generate().save(tmp_path / "k")
    assert PrivateKey.load(tmp_path / "k").public == KEY.public


def test_a_key_that_other_accounts_may_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "agent.key"
    KEY.save(path)
    path.chmod(0o644)
    with pytest.raises(errors.UsageError, match=r"agent\.key.*0644.*chmod 600"):
        PrivateKey.load(path)


def test_a_missing_key_names_its_path(tmp_path: Path) -> None:
    with pytest.raises(errors.Unavailable, match=r"nowhere\.key") as caught:
        PrivateKey.load(tmp_path / "nowhere.key")
    assert caught.value.code == "key-missing"


@pytest.mark.parametrize(
    "content", [b"", b"not a key", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"]
)
def test_a_file_that_holds_no_key_names_its_path(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "agent.key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(errors.UsageError, match=r"agent\.key"):
        PrivateKey.load(path)


def test_a_key_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ec.key"
    other = ec.generate_private_key(ec.SECP256R1())
    path.write_bytes(
        other.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    path.chmod(0o600)
    with pytest.raises(errors.UsageError, match="Ed25519"):
        PrivateKey.load(path)


def test_a_private_key_does_not_show_itself() -> None:
    assert "object at" in repr(KEY)
    assert not hasattr(KEY, "__dict__")
