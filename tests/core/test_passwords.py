"""Long passwords that are not the first ones anybody tries."""

from __future__ import annotations

import pytest

from keepflow.core.passwords import LEAST, MOST, weakness


@pytest.mark.parametrize(
    "password",
    [
        "correct horse battery",
        "ein kleiner grüner Fisch",
        "纸上得来终觉浅绝知此事要躬行",
        "x7$kPq!9zLmN",
        "password of my grandmother's cat",
        "a b c d e f g h i j",
        "qwerty but then a lot more words",
    ],
)
def test_a_few_words_will_do(password: str) -> None:
    assert weakness(password, "ann") == ""


@pytest.mark.parametrize(
    ("password", "said"),
    [
        ("", "at least"),
        ("x" * (LEAST - 1), "at least"),
        ("abcdefghijkl" * 30, "at most"),
        ("aaaaaaaaaaaaaaaa", "handful"),
        ("121212121212", "handful"),
        ("Password1234", "first passwords"),
        ("passwordpassword", "first passwords"),
        ("qwertyuiop12", "first passwords"),
        ("123456789012", "first passwords"),
        ("keepflow2026", "first passwords"),
        ("Administrator1", "first passwords"),
        ("margaret1234", "first passwords"),
    ],
)
def test_the_obvious_ones_are_refused_with_the_reason(password: str, said: str) -> None:
    assert said in weakness(password, "margaret")


def test_the_bounds_are_inside() -> None:
    assert weakness("abcdefghij k", "x") == ""
    assert weakness(("abcdefghij k" * 30)[:MOST], "x") == ""
