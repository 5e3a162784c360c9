"""Terminal text, made harmless."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepflow.core.ansi import colours_only, plain

PIECES = st.sampled_from(
    [
        "\x1b",
        "[",
        "]",
        "0;",
        "31",
        "m",
        "8;;",
        "\x07",
        "\x1b\\",
        "K",
        "H",
        "text",
        "\r",
        "\n",
        "\x9b",
        "\u202e",
        "(B",
        "é",
        "?",
    ]
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ✓", "plain ✓"),
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07after", "after"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1b[2J\x1b[Htop", "top"),
        ("10%\r50%\r100%\n", "100%\n"),
        ("a\r\nb", "a\nb"),
        ("never ends \x1b[", "never ends "),
        ("never ends \x1b]0;x", "never ends "),
        ("bell\x07 back\x08space", "bell backspace"),
        ("\u202egnp.exe", "gnp.exe"),
    ],
)
def test_plain_is_what_a_reader_would_see(text: str, shown: str) -> None:
    assert plain(text) == shown


@given(st.lists(PIECES).map("".join))
def test_plain_never_keeps_a_control_character(text: str) -> None:
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", plain(text))


@given(st.lists(PIECES).map("".join))
def test_what_is_left_in_colour_is_colour(text: str) -> None:
    kept = colours_only(text)
    assert "\x1b" not in re.sub(r"\x1b\[[0-9;:]*m", "", kept)
    assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1a\x7f-\x9f\u202a-\u202e]", kept)
    assert plain(kept) == plain(text) or "\r" in text


@given(
    st.text(
        alphabet=st.characters(
            blacklist_categories=["Cc", "Cs"],
            blacklist_characters="\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069",
        )
    )
)
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    assert plain(text) == colours_only(text) == text
