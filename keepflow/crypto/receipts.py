"""Receipts under signatures: statements of `core.receipts` in DSSE envelopes, and the reading of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from keepflow.core import receipts
from keepflow.core.deploys import canonical
from keepflow.core.plain import loads
from keepflow.core.receipts import Build, Result, Subject
from keepflow.crypto import dsse
from keepflow.crypto.keys import PrivateKey, PublicKey
from keepflow.errors import BadReceipt, BadSignature


@dataclass(frozen=True, slots=True)
class Trust:
    """Whose word counts: the keys of the master, and keys held elsewhere that must have signed how an image was built.

    With `witnesses` a provenance needs a signature of one of them; without, one of the master's.
    """

    master: tuple[PublicKey, ...]
    witnesses: tuple[PublicKey, ...] = ()


def seal(statement: Mapping[str, Any], *keys: PrivateKey) -> dict[str, Any]:
    """Return the envelope of a statement, signed by every key."""
    return dsse.seal(canonical(statement), receipts.PAYLOAD_TYPE, *keys)


def read(envelope: Mapping[str, Any], subject: Subject, trust: Trust) -> Build | Result:
    """Return what a receipt says about this subject.

    Raises BadReceipt with the field that does not fit: a signature, another image, builder or kind of statement.
    """
    statement = _statement(_opened(envelope, trust.master + trust.witnesses))
    kind = receipts.predicate_type(statement)
    if kind == receipts.TEST_RESULT:
        _opened(envelope, trust.master)
        return receipts.read_test_result(statement, subject)
    _opened(envelope, trust.witnesses or trust.master)
    return receipts.read_provenance(statement, subject, {key.key_id for key in trust.master})


def read_to_the_last_byte(envelope: Mapping[str, Any], digest: str, known: Mapping[str, PublicKey]) -> Build | Result:
    """Return what a receipt says about a digest, whatever its repository is called; every byte of it is accounted for.

    Raises BadReceipt with the field that does not fit.
    """
    statement = _statement(dsse.open_to_the_last_byte(envelope, receipts.PAYLOAD_TYPE, known))
    subject = Subject(receipts.subject_name(statement), digest)
    if receipts.predicate_type(statement) == receipts.TEST_RESULT:
        return receipts.read_test_result(statement, subject)
    return receipts.read_provenance(statement, subject, set(known))


def _opened(envelope: Mapping[str, Any], trusted: tuple[PublicKey, ...]) -> bytes:
    try:
        return dsse.open_(envelope, receipts.PAYLOAD_TYPE, *trusted)
    except BadSignature as error:
        raise BadReceipt(f"signatures: {error}", code="receipt-signature", field="signatures") from None


def _statement(payload: bytes) -> Mapping[str, Any]:
    try:
        statement = loads(payload)
    except ValueError as error:
        raise BadReceipt(f"payload is not readable: {error}", field="payload") from None
    if not isinstance(statement, dict):
        raise BadReceipt("payload is no statement", field="payload")
    return statement
