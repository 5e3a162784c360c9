"""Sealing to one agent."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepflow import errors
from keepflow.crypto import keys, sealing

KEY = keys.generate()


@given(st.binary(max_size=500), st.text(max_size=50))
def test_what_was_sealed_to_an_agent_opens_there_and_only_for_its_place(value: bytes, place: str) -> None:
    blob = sealing.seal(value, KEY.opening.public, place)
    assert KEY.opening.unseal(blob, place) == value
    with pytest.raises(errors.BadSeal):
        KEY.opening.unseal(blob, f"{place}.")


def test_another_agent_cannot_open_it() -> None:
    blob = sealing.seal(b"hunter22", KEY.opening.public, "here")
    with pytest.raises(errors.BadSeal):
        keys.generate().opening.unseal(blob, "here")


def test_every_changed_bit_and_every_cut_is_noticed() -> None:
    blob = sealing.seal(b"hunter22", KEY.opening.public, "here")
    for bit in range(len(blob) * 8):
        changed = bytearray(blob)
        changed[bit // 8] ^= 1 << bit % 8
        # X25519 ignores the top bit of a public key; the key of the cipher is bound to all bytes
        with pytest.raises(errors.BadSeal):
            KEY.opening.unseal(bytes(changed), "here")
    for length in range(len(blob)):
        with pytest.raises(errors.BadSeal):
            KEY.opening.unseal(blob[:length], "here")


def test_the_same_short_value_never_looks_the_same() -> None:
    first, second = (sealing.seal(b"1", KEY.opening.public, "here") for _ in range(2))
    assert first[33:] != second[33:]


def test_the_opening_key_follows_from_the_agents_key_and_does_not_show_itself() -> None:
    assert KEY.opening.public == KEY.opening.public != KEY.public.raw
    assert KEY.opening.public.hex() not in repr(KEY.opening) + repr(KEY)


def test_a_key_nobody_can_hold_is_refused() -> None:
    for public in (b"", bytes(32), b"x" * 31):
        with pytest.raises(errors.UsageError):
            sealing.seal(b"hunter22", public, "here")
