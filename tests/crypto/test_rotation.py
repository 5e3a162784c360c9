"""Pinned keys move on with the word of the key before, and with no other."""

from __future__ import annotations

import base64
import copy
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepflow.core.deploys import canonical
from keepflow.crypto import dsse, keys, rotation
from keepflow.crypto.rotation import GRACE, Former, Pinned
from keepflow.errors import BadSignature

KEYS = [keys.generate() for _ in range(5)]
THEIRS = keys.generate()
CHAIN = [rotation.seal(old, new, at) for at, (old, new) in enumerate(pairwise(KEYS), 1)]
FIRST, LAST = Pinned((KEYS[0].public,)), KEYS[-1].public


def test_the_whole_chain_leads_from_the_first_key_to_the_last() -> None:
    found = FIRST.follow(CHAIN)
    assert found.current == (LAST,)
    assert found.former == tuple(Former(key.public, at + GRACE) for at, key in enumerate(KEYS[:-1], 1))
    assert found.follow(CHAIN) == found


@given(st.permutations(CHAIN), st.lists(st.sampled_from(CHAIN)), st.integers(0, 4))
def test_in_any_order_and_however_often_it_is_told(
    chain: list[dict[str, Any]], again: list[dict[str, Any]], start: int
) -> None:
    found = Pinned((KEYS[start].public,)).follow([*chain, *again])
    assert found.current == (LAST,)
    assert set(found.for_receipts) == {key.public for key in KEYS}


@given(st.sets(st.integers(0, 3)))
def test_a_missing_link_ends_the_way_there(missing: set[int]) -> None:
    found = FIRST.follow([link for number, link in enumerate(CHAIN) if number not in missing])
    assert found.current == (KEYS[min(missing, default=4)].public,)


def test_the_old_key_is_obeyed_for_a_while_and_its_receipts_for_good() -> None:
    found = FIRST.follow(CHAIN[:1])
    assert set(found.for_orders(GRACE)) == {KEYS[0].public, KEYS[1].public}
    assert found.for_orders(1 + GRACE) == (KEYS[1].public,)
    assert KEYS[0].public in found.for_receipts


def test_who_joined_later_reads_what_the_keys_before_signed_but_obeys_them_never() -> None:
    found = Pinned((LAST,)).follow(CHAIN)
    assert found.for_orders(0) == (LAST,)
    assert set(found.for_receipts) == {key.public for key in KEYS}


def test_a_stolen_key_that_was_replaced_leads_nobody_away() -> None:
    moved = FIRST.follow(CHAIN[:1])
    assert moved.follow([rotation.seal(KEYS[0], THEIRS, 7)]) == moved
    assert THEIRS.public not in moved.follow([rotation.seal(KEYS[0], THEIRS, 7)]).for_receipts


def _only(*signers: keys.PrivateKey, **changes: Any) -> dict[str, Any]:
    payload = {"version": 1, "old": KEYS[0].public.text, "new": KEYS[1].public.text, "at": 1, **changes}
    return dsse.seal(canonical(payload), rotation.PAYLOAD_TYPE, *signers)


@pytest.mark.parametrize(
    "envelope",
    [
        _only(KEYS[0]),
        _only(KEYS[1]),
        _only(THEIRS),
        _only(KEYS[0], THEIRS),
        _only(KEYS[0], KEYS[1], version=2),
        _only(KEYS[0], KEYS[1], at="1"),
        _only(KEYS[0], KEYS[1], at=True),
        _only(KEYS[0], KEYS[1], new="ed25519:x"),
        _only(KEYS[0], new=KEYS[0].public.text),
        dsse.seal(b"[]", rotation.PAYLOAD_TYPE, KEYS[0]),
        dsse.seal(base64.b64decode(CHAIN[0]["payload"]), "application/json", KEYS[0], KEYS[1]),
        {},
        {"payload": 7},
    ],
)
def test_a_forged_rotation_is_refused(envelope: dict[str, Any]) -> None:
    with pytest.raises(BadSignature):
        FIRST.follow([envelope])


@given(st.data())
def test_no_bit_of_a_rotation_can_be_flipped(data: st.DataObject) -> None:
    envelope = copy.deepcopy(CHAIN[0])
    holder, name = data.draw(
        st.sampled_from([(envelope, "payload"), *((signature, "sig") for signature in envelope["signatures"])])
    )
    raw = bytearray(base64.b64decode(holder[name]))
    bit = data.draw(st.integers(0, len(raw) * 8 - 1))
    raw[bit // 8] ^= 1 << bit % 8
    holder[name] = base64.b64encode(raw).decode()
    with pytest.raises(BadSignature):
        FIRST.follow([envelope])
