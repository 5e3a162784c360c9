"""Receipts under signatures: whose key counts for what."""

from __future__ import annotations

import base64
import copy
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepflow.core import receipts as statements
from keepflow.core.receipts import Build
from keepflow.crypto import dsse, keys, receipts
from keepflow.crypto.receipts import Trust
from keepflow.errors import BadReceipt
from tests.core.test_receipts import BUILD, RESULT, SUBJECT

MASTER, WITNESS, STRANGER = keys.generate(), keys.generate(), keys.generate()
TRUST = Trust((MASTER.public,))
WITNESSED = Trust((MASTER.public,), (WITNESS.public,))
BUILT = replace(BUILD, builder=statements.builder_id("https://ci.example.org", MASTER.public.key_id))
PROVENANCE = statements.provenance(SUBJECT, BUILT)
ENVELOPE = receipts.seal(PROVENANCE, MASTER)


def refused(envelope: dict[str, object], trust: Trust = TRUST) -> str:
    """Return the code a receipt is refused with."""
    with pytest.raises(BadReceipt) as caught:
        receipts.read(envelope, SUBJECT, trust)
    return caught.value.code


def test_what_was_sealed_is_read() -> None:
    assert receipts.read(ENVELOPE, SUBJECT, TRUST) == BUILT
    assert receipts.read(receipts.seal(statements.tested(SUBJECT, RESULT), MASTER), SUBJECT, TRUST) == RESULT


def test_a_strangers_word_does_not_count() -> None:
    assert refused(receipts.seal(PROVENANCE, STRANGER)) == "receipt-signature"


def test_where_a_witness_is_asked_for_the_masters_word_alone_is_not_enough() -> None:
    assert refused(ENVELOPE, WITNESSED) == "receipt-signature"
    assert isinstance(receipts.read(receipts.seal(PROVENANCE, MASTER, WITNESS), SUBJECT, WITNESSED), Build)
    assert isinstance(receipts.read(receipts.seal(PROVENANCE, WITNESS), SUBJECT, WITNESSED), Build)


def test_a_witness_says_nothing_of_tests() -> None:
    tested = statements.tested(SUBJECT, RESULT)
    assert refused(receipts.seal(tested, WITNESS), WITNESSED) == "receipt-signature"
    assert receipts.read(receipts.seal(tested, MASTER), SUBJECT, WITNESSED) == RESULT


def test_an_envelope_of_another_type_is_no_receipt() -> None:
    order = dsse.seal(base64.b64decode(ENVELOPE["payload"]), "application/vnd.keepflow.deploy-order.v1+json", MASTER)
    assert refused(order) == "receipt-signature"
    assert refused({**order, "payloadType": statements.PAYLOAD_TYPE}) == "receipt-signature"


@pytest.mark.parametrize("payload", [b"", b"{", b"[]", b'{"_type": 1, "_type": 2}', b"[" * 100_000])
def test_a_signed_payload_that_is_no_statement_is_named(payload: bytes) -> None:
    assert refused(dsse.seal(payload, statements.PAYLOAD_TYPE, MASTER)) == "receipt-unreadable"


@given(st.data())
def test_no_bit_of_a_receipt_can_be_flipped(data: st.DataObject) -> None:
    envelope = copy.deepcopy(ENVELOPE)
    signature = envelope["signatures"][0]
    holder, name = data.draw(st.sampled_from([(envelope, "payload"), (signature, "sig")]))
    raw = bytearray(base64.b64decode(holder[name]))
    bit = data.draw(st.integers(0, len(raw) * 8 - 1))
    raw[bit // 8] ^= 1 << bit % 8
    holder[name] = base64.b64encode(raw).decode()
    assert refused(envelope) == "receipt-signature"
