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


def countersign(envelope: Mapping[str, Any], key: PrivateKey) -> dict[str, Any]:
    """Return the envelope with one signature more; who does so has read it."""
    message = _pre_authentication(envelope["payloadType"], decode(envelope["payload"]))
    own = {"keyid": key.public.key_id, "sig": base64.b64encode(key.sign(message)).decode()}
    return {**envelope, "signatures": [*envelope["signatures"], own]}


def open_(envelope: Mapping[str, Any], payload_type: str, *trusted: PublicKey) -> bytes:
    """Return the payload of an envelope that at least one trusted key signed.

    Raises BadSignature for everything else: unsigned, altered, unknown key, other payload type, malformed.
    """
    signatures = _signatures(envelope)
    if envelope.get("payloadType") != payload_type:
        raise errors.BadSignature(f"the envelope does not hold the expected {payload_type}")
    payload = decode(envelope.get("payload"))
    message = _pre_authentication(payload_type, payload)
    if any(_fits(key, signature, message) for signature in signatures for key in trusted):
        return payload
    raise errors.BadSignature("no trusted key signed this envelope")


def open_to_the_last_byte(envelope: Mapping[str, Any], payload_type: str, known: Mapping[str, PublicKey]) -> bytes:
    """Return the payload of an envelope in which nothing is unsigned, unknown or spelt in a second way.

    `known` are keys by their id; every signature must name one of them and fit. Raises BadReceipt with the field.
    """
    if set(envelope) != {"payloadType", "payload", "signatures"}:
        raise errors.BadReceipt("the envelope has other fields than it should", field="envelope")
    if envelope["payloadType"] != payload_type:
        raise errors.BadReceipt(f"payloadType is not {payload_type}", field="payloadType")
    payload = _spelt_once(envelope["payload"], "payload")
    message = _pre_authentication(payload_type, payload)
    signatures = envelope["signatures"]
    if not isinstance(signatures, list) or not 0 < len(signatures) <= _MOST_SIGNATURES:
        raise errors.BadReceipt("signatures: there is none", field="signatures")
    for index, entry in enumerate(signatures):
        where = f"signatures.{index}"
        if not isinstance(entry, dict) or set(entry) != {"keyid", "sig"}:
            raise errors.BadReceipt(f"{where} has other fields than it should", field=where)
        key = known.get(entry["keyid"]) if isinstance(entry["keyid"], str) else None
        if key is None:
            raise errors.BadReceipt(f"{where}.keyid names no key that is known here", field=f"{where}.keyid")
        if not _fits(key, _spelt_once(entry["sig"], f"{where}.sig"), message):
            raise errors.BadReceipt(
                f"{where}.sig: key {key.key_id} did not sign this payload",
                code="receipt-signature",
                field=f"{where}.sig",
            )
    return payload


def _spelt_once(text: object, where: str) -> bytes:
    """Decode base64 of which there is no other spelling."""
    try:
        data = decode(text)
    except errors.BadSignature:
        data = b""
    if not data or base64.b64encode(data).decode() != text:
        raise errors.BadReceipt(f"{where} is not base64 as it should be", field=where)
    return data


def _pre_authentication(payload_type: str, payload: bytes) -> bytes:
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def _signatures(envelope: Mapping[str, Any]) -> list[bytes]:
    entries = envelope.get("signatures") if isinstance(envelope, Mapping) else None
    if not isinstance(entries, list) or not 0 < len(entries) <= _MOST_SIGNATURES:
        raise errors.BadSignature("the envelope is unsigned or malformed")
    return [decode(entry.get("sig") if isinstance(entry, Mapping) else None) for entry in entries]


def decode(text: object) -> bytes:
    """Decode base64 of an envelope; raises BadSignature for anything else."""
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
