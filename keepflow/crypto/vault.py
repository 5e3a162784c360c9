"""Values sealed at rest with AES-256-GCM, each bound to the place it belongs to.

The key file holds one key per line in base64; the first line seals, every line opens, so a new key is put on top to
rotate. A sealed value is `version (1) | key id (8) | nonce (12) | ciphertext and tag`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from keepflow import errors
from keepflow.tools.files import read_private, write_atomic

_VERSION = b"\x01"
_ID, _NONCE, _KEY = 8, 12, 32
_HEADER = len(_VERSION) + _ID


class Vault:
    """Seals and unseals values with the keys of one file; the object never shows them."""

    def __init__(self, keys: list[bytes]) -> None:
        self._ciphers = {hashlib.sha256(key).digest()[:_ID]: AESGCM(key) for key in keys}
        self._current = next(iter(self._ciphers))

    @classmethod
    def open(cls, path: Path, create: bool) -> Vault:
        """Read the key file; with `create` an absent one is made (0600) first, an existing one is never changed.

        Raises Unavailable `key-missing` and UsageError `key-exposed` or `bad-key`, each naming the path.
        """
        if create and not path.exists():
            _make_key(path)
        lines = read_private(path).split()
        try:
            keys = [base64.b64decode(line, validate=True) for line in lines]
        except binascii.Error:
            keys = []
        if not keys or any(len(key) != _KEY for key in keys):
            raise errors.UsageError(
                f"{path}: not a keepflow key file; put back the exported copy (a new key cannot open old secrets)",
                code="bad-key",
            )
        return cls(keys)

    def seal(self, value: bytes, place: str) -> bytes:
        """Return `value` sealed so that it opens only at `place` (any text that names one row or field)."""
        header, nonce = _VERSION + self._current, os.urandom(_NONCE)
        return header + nonce + self._ciphers[self._current].encrypt(nonce, value, header + place.encode())

    def unseal(self, blob: bytes, place: str) -> bytes:
        """Return the value that was sealed for `place`; raises BadSeal."""
        header, nonce, sealed = blob[:_HEADER], blob[_HEADER : _HEADER + _NONCE], blob[_HEADER + _NONCE :]
        cipher = self._ciphers.get(header[len(_VERSION) :]) if header.startswith(_VERSION) else None
        if cipher is None:
            raise errors.BadSeal(f"{place}: sealed with a key that is not in the key file")
        try:
            return cipher.decrypt(nonce, sealed, header + place.encode())
        except (InvalidTag, ValueError):
            raise errors.BadSeal(f"{place}: the sealed value was changed, or belongs to another place") from None


def _make_key(path: Path) -> None:
    try:
        write_atomic(path, base64.b64encode(os.urandom(_KEY)) + b"\n", 0o600, replace=False)
    except FileExistsError:
        return  # another process made it at the same moment: its key is the key
