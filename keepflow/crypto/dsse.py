"""DSSE v1 envelopes: a payload and the signatures over it.

The signature covers the pre-authentication encoding, so type and payload cannot be exchanged for one another.
securesystemslib would do the same at a price of 50 ms and 10 MB for every agent; the tests use it as the oracle.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from keepflow import errors
from keepflow.crypto.keys import PrivateKey, PublicKey

#: More signatures than anybody needs; a hostile envelope must not buy unbounded verifications.
_MOST_SIGNATURES = 16


def seal(payload: bytes, payload_type: str, *keys: PrivateKey) -> dict[str, Any]:
    """Return the JSON-able envelope of a payload, signed by every key."""
    message = _pre_authentication(payload_type, payload)
    return {
        "payloadType": payload_type,
        "payload": base64.b64encode(payload).decode(),
        "signatures": [
            {"keyid": key.public.key_id, "sig": base64.b64encode(key.sign(message)).decode()} for key in keys
        ],
    }


def open_(envelope: Mapping[str, Any], payload_type: str, *trusted: PublicKey) -> bytes:
    """Return the payload of an envelope that at least one trusted key signed.

    Raises BadSignature for everything else: unsigned, altered, unknown key, other payload type, malformed.
    """
    signatures = _signatures(envelope)
    if envelope.get("payloadType") != payload_type:
        raise errors.BadSignature(f"the envelope does not hold the expected {payload_type}")
    payload = _decode(envelope.get("payload"))
    message = _pre_authentication(payload_type, payload)
    if any(_fits(key, signature, message) for signature in signatures for key in trusted):
        return payload
    raise errors.BadSignature("no trusted key signed this envelope")


def _pre_authentication(payload_type: str, payload: bytes) -> bytes:
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def _signatures(envelope: Mapping[str, Any]) -> list[bytes]:
    entries = envelope.get("signatures") if isinstance(envelope, Mapping) else None
    if not isinstance(entries, list) or not 0 < len(entries) <= _MOST_SIGNATURES:
        raise errors.BadSignature("the envelope is unsigned or malformed")
    return [_decode(entry.get("sig") if isinstance(entry, Mapping) else None) for entry in entries]


def _decode(text: object) -> bytes:
    try:
        return base64.b64decode(text, validate=True) if isinstance(text, str) else _malformed()
    except (binascii.Error, ValueError):
        return _malformed()


def _malformed() -> bytes:
    raise errors.BadSignature("the envelope is malformed")


def _fits(key: PublicKey, signature: bytes, message: bytes) -> bool:
    try:
        key.verify(signature, message)
    except errors.BadSignature:
        return False
    return True
