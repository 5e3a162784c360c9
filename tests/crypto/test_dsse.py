"""DSSE envelopes, with securesystemslib as the oracle."""

from __future__ import annotations

import base64
import contextlib
import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from securesystemslib.dsse import Envelope
from securesystemslib.signer import CryptoSigner, SSlibKey

from keepflow import errors
from keepflow.crypto import dsse
from keepflow.crypto.keys import generate

TYPE = "application/vnd.in-toto+json"
KEY, OTHER = generate(), generate()
PAYLOAD = b'{"image":"sha256:abc"}'
SEALED = dsse.seal(PAYLOAD, TYPE, KEY)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
field_names = st.sampled_from(["payload", "payloadType", "signatures", "keyid", "sig", "x"])
envelope_like = st.dictionaries(
    field_names,
    json_values | st.lists(st.dictionaries(field_names, json_values | st.just("AAAA")), max_size=3) | st.just(TYPE),
)


@given(st.binary(max_size=300), st.text(min_size=1, max_size=60))
def test_what_was_sealed_opens(payload: bytes, kind: str) -> None:
    envelope = json.loads(json.dumps(dsse.seal(payload, kind, KEY)))
    assert dsse.open_(envelope, kind, OTHER.public, KEY.public) == payload


def test_one_trusted_signature_among_several_is_enough() -> None:
    envelope = dsse.seal(PAYLOAD, TYPE, OTHER, KEY)
    assert dsse.open_(envelope, TYPE, KEY.public) == PAYLOAD
    assert [signature["keyid"] for signature in envelope["signatures"]] == [OTHER.public.key_id, KEY.public.key_id]


def oracle_key() -> SSlibKey:
    return SSlibKey(KEY.public.key_id, "ed25519", "ed25519", {"public": KEY.public.raw.hex()})


def test_securesystemslib_verifies_our_envelope() -> None:
    envelope = Envelope.from_dict(json.loads(json.dumps(SEALED)))
    assert envelope.verify([oracle_key()], 1)
    assert envelope.payload == PAYLOAD


def test_we_open_an_envelope_of_securesystemslib() -> None:
    envelope = Envelope(PAYLOAD, TYPE, {})
    envelope.sign(CryptoSigner(KEY._key, oracle_key()))
    assert dsse.open_(envelope.to_dict(), TYPE, KEY.public) == PAYLOAD


@given(st.binary(max_size=100), st.text(max_size=40))
def test_our_pre_authentication_encoding_is_the_standard_one(payload: bytes, kind: str) -> None:
    assert dsse._pre_authentication(kind, payload) == Envelope(payload, kind, {}).pae()


def tampered() -> dict[str, dict[str, Any]]:
    foreign = dsse.seal(PAYLOAD, TYPE, OTHER)
    other_payload = base64.b64encode(b'{"image":"sha256:evil"}').decode()
    return {
        "unsigned": {**SEALED, "signatures": []},
        "payload changed": {**SEALED, "payload": other_payload},
        "key unknown": foreign,
        "key id of a trusted key claimed": {
            **foreign,
            "signatures": [{**foreign["signatures"][0], "keyid": KEY.public.key_id}],
        },
        "another type": {**SEALED, "payloadType": "text/plain"},
        "signature of another payload": {**dsse.seal(b"other", TYPE, KEY), "payload": SEALED["payload"]},
        "signature over the bare payload": {
            **SEALED,
            "signatures": [{"keyid": "", "sig": base64.b64encode(KEY.sign(PAYLOAD)).decode()}],
        },
        "too many signatures": {**SEALED, "signatures": SEALED["signatures"] * 17},
        "payload not base64": {**SEALED, "payload": "%%%"},
        "payload not text": {**SEALED, "payload": 7},
        "signature not text": {**SEALED, "signatures": [{"sig": None}]},
        "signatures a mapping": {**SEALED, "signatures": {"sig": "AAAA"}},
        "nothing": {},
    }


@pytest.mark.parametrize("name", tampered())
def test_every_tampered_envelope_is_a_bad_signature(name: str) -> None:
    with pytest.raises(errors.BadSignature):
        dsse.open_(tampered()[name], TYPE, KEY.public)


def test_an_envelope_of_one_type_never_opens_as_another() -> None:
    relabelled = {**dsse.seal(PAYLOAD, "text/plain", KEY), "payloadType": TYPE}
    with pytest.raises(errors.BadSignature):
        dsse.open_(relabelled, TYPE, KEY.public)


def test_without_a_trusted_key_nothing_opens() -> None:
    with pytest.raises(errors.BadSignature):
        dsse.open_(SEALED, TYPE)


@given(envelope_like | json_values)
@example({"payload": "\ud800", "payloadType": TYPE, "signatures": [{"sig": "\ud800"}]})
def test_whatever_arrives_the_only_error_is_a_bad_signature(envelope: Any) -> None:
    with pytest.raises(errors.BadSignature):
        dsse.open_(envelope, TYPE, KEY.public)


@given(st.integers(0, len(json.dumps(SEALED)) - 1), st.integers(1, 127))
def test_no_changed_byte_of_an_envelope_changes_what_it_says(place: int, flip: int) -> None:
    text = bytearray(json.dumps(SEALED).encode())
    text[place] ^= flip
    try:
        envelope = json.loads(text)
    except ValueError:
        return
    with contextlib.suppress(errors.BadSignature):
        assert dsse.open_(envelope, TYPE, KEY.public) == PAYLOAD
