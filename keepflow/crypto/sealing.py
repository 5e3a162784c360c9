"""Values that only one agent can read: ECIES of X25519, HKDF-SHA256 and AES-256-GCM, each bound to one place.

An agent's sealing key follows from its Ed25519 key, so it is one file on the host that must stay private, not two. A
sealed value is `version (1) | ephemeral public key (32) | ciphertext and tag`. The key of the cipher is derived from a
fresh ephemeral key and used once, so its nonce is constant.
"""

from __future__ import annotations

from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from keepflow import errors

_VERSION = b"\x01"
_PUBLIC = 32
_NONCE = bytes(12)
_AGENT_KEY = b"keepflow-agent-sealing-key-v1"
_VALUE_KEY = b"keepflow-sealed-value-v1"


@dataclass(frozen=True, slots=True, repr=False)
class OpeningKey:
    """What an agent unseals with; it never shows itself in a repr, a log or an error."""

    _key: X25519PrivateKey

    @classmethod
    def derive(cls, seed: bytes) -> OpeningKey:
        """Return the key that belongs to the 32 private bytes of an agent's own key."""
        return cls(X25519PrivateKey.from_private_bytes(_derived(seed, _AGENT_KEY)))

    @property
    def public(self) -> bytes:
        """The 32 bytes that others seal with."""
        return self._key.public_key().public_bytes_raw()

    def unseal(self, blob: bytes, place: str) -> bytes:
        """Return the value that was sealed to this key for `place`; raises BadSeal."""
        header, sealed = blob[: 1 + _PUBLIC], blob[1 + _PUBLIC :]
        try:
            if not header.startswith(_VERSION):
                raise ValueError("another version")
            shared = self._key.exchange(X25519PublicKey.from_public_bytes(header[1:]))
            return _cipher(shared, header, self.public).decrypt(_NONCE, sealed, place.encode())
        except (InvalidTag, ValueError):
            raise errors.BadSeal(
                f"{place}: the sealed value was changed, or belongs to another agent or another place"
            ) from None


def seal(value: bytes, public: bytes, place: str) -> bytes:
    """Seal `value` so that only the holder of `public`'s private half opens it, only at `place`.

    Raises UsageError `bad-key` for a key with which no secret can be agreed upon.
    """
    ephemeral = X25519PrivateKey.generate()
    header = _VERSION + ephemeral.public_key().public_bytes_raw()
    try:
        shared = ephemeral.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:
        raise errors.UsageError("not an X25519 public key", code="bad-key") from None
    return header + _cipher(shared, header, public).encrypt(_NONCE, value, place.encode())


def _cipher(shared: bytes, header: bytes, public: bytes) -> AESGCM:
    return AESGCM(_derived(shared, _VALUE_KEY + header + public))


def _derived(secret: bytes, info: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(secret)
