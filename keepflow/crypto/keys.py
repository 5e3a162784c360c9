"""Ed25519 keys: who signed an order or a receipt, and who an agent is."""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from keepflow import errors
from keepflow.crypto.sealing import OpeningKey
from keepflow.tools.files import read_private, write_atomic

_PREFIX = "ed25519:"


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key that signatures are checked with; `raw` is its 32 bytes."""

    raw: bytes

    @classmethod
    def parse(cls, text: str) -> PublicKey:
        """Read `ed25519:<base64>`; raises UsageError `bad-key`."""
        try:
            raw = base64.b64decode(text.removeprefix(_PREFIX), validate=True)
        except (binascii.Error, ValueError):
            raw = b""
        if not text.startswith(_PREFIX) or len(raw) != 32:
            raise errors.UsageError(f"not a public key (ed25519:<base64>): {text[:80]!r}", code="bad-key")
        return cls(raw)

    @property
    def text(self) -> str:
        """The key as people copy it: `ed25519:<base64>`."""
        return _PREFIX + base64.b64encode(self.raw).decode()

    @property
    def key_id(self) -> str:
        """The key's fingerprint: `sha256:<hex>` of its raw bytes."""
        return f"sha256:{hashlib.sha256(self.raw).hexdigest()}"

    def verify(self, signature: bytes, message: bytes) -> None:
        """Return when this key signed exactly this message; raises BadSignature."""
        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, message)
        except (InvalidSignature, ValueError):
            raise errors.BadSignature(f"the signature was not made by key {self.key_id}") from None


@dataclass(frozen=True, slots=True, repr=False)
class PrivateKey:
    """A key that signs; it never shows itself in a repr, a log or an error."""

    _key: Ed25519PrivateKey

    @classmethod
    def load(cls, path: Path) -> PrivateKey:
        """Read a key file; raises Unavailable `key-missing`, UsageError `key-exposed` or `bad-key`, naming the path."""
        pem = read_private(path)
        try:
            key = serialization.load_pem_private_key(pem, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            key = None
        if not isinstance(key, Ed25519PrivateKey):
            raise errors.UsageError(f"{path}: not an Ed25519 private key (PEM, no passphrase)", code="bad-key")
        return cls(key)

    def save(self, path: Path) -> None:
        """Write the key to a new file (0600, atomic, fsynced); a key is never overwritten: raises FileExistsError."""
        pem = self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        write_atomic(path, pem, 0o600, replace=False)

    @property
    def public(self) -> PublicKey:
        """The key that checks what this one signs."""
        return PublicKey(self._key.public_key().public_bytes_raw())

    @property
    def opening(self) -> OpeningKey:
        """The key that opens what was sealed to the holder of this one."""
        return OpeningKey.derive(self._key.private_bytes_raw())

    def sign(self, message: bytes) -> bytes:
        """Return the 64-byte signature of a message."""
        return self._key.sign(message)


def generate() -> PrivateKey:
    """Make a new key from the system's randomness."""
    return PrivateKey(Ed25519PrivateKey.generate())
