"""Text from outside becomes one bounded, printable line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepflow.core.text import did_you_mean, one_line, quoted


@given(st.text(), st.integers(2, 60))
def test_any_text_becomes_one_printable_line_within_its_limit(text: str, limit: int) -> None:
    line = one_line(text, limit)
    assert len(line) <= limit
    assert line.isprintable()


@pytest.mark.parametrize("text", ["a\nb", "a\r\nb", "a\x1b[31mb", "a\0b", "a\u2028b", "a\ud800b", "a\u202eb"])
def test_what_moves_the_cursor_or_turns_the_line_is_taken_out(text: str) -> None:
    assert one_line(text).replace("[31m", "") == "a b"


def test_a_cut_shows() -> None:
    assert one_line("x" * 50, 10) == "x" * 9 + "…"
    assert quoted("x" * 50, 5) == "'xxxx…'"


def test_a_near_word_is_offered_and_a_far_one_is_not() -> None:
    assert did_you_mean("tiemout", ["timeout", "path"]) == " (did you mean 'timeout'?)"
    assert did_you_mean("zzz", ["timeout", "path"]) == ""
