"""Bearer tokens."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepflow.crypto import tokens


@given(st.from_regex(r"[a-z]{1,20}", fullmatch=True))
def test_a_new_token_is_well_formed_and_tells_its_kind(kind: str) -> None:
    token = tokens.new(kind)
    assert re.fullmatch(rf"kf_{kind}_[0-9A-Za-z]{{30}}_[0-9A-Za-z]{{6}}", token)
    assert tokens.kind_of(token) == kind


@pytest.mark.parametrize("kind", ["", "API", "a_b", "a-b", "ünicode", "x" * 21])
def test_a_kind_that_could_be_misread_is_refused(kind: str) -> None:
    with pytest.raises(ValueError, match="kind"):
        tokens.new(kind)


def test_tokens_never_repeat() -> None:
    assert len({tokens.new("job") for _ in range(1000)}) == 1000


def test_every_mistyped_character_is_noticed() -> None:
    token = tokens.new("join")
    for place in range(len("kf_join_"), len(token)):
        wrong = "A" if token[place] != "A" else "B"
        assert tokens.kind_of(token[:place] + wrong + token[place + 1 :]) is None


@given(st.text())
def test_any_text_can_be_asked_for_its_kind_and_compared(text: str) -> None:
    assert tokens.kind_of(text) is None
    assert tokens.matches(text, tokens.digest(text))
    assert not tokens.matches(text + "x", tokens.digest(text))
    assert not tokens.matches("x", text)


def test_the_digest_is_sha256_in_hex() -> None:
    assert tokens.digest("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
