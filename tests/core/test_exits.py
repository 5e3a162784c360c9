"""What exit codes mean."""

from __future__ import annotations

import pytest

from keepflow.core.exits import meaning


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (124, "ran out of time"),
        (126, "not runnable"),
        (127, "not found"),
        (137, "killed, or the machine ran out of memory"),
        (139, "SIGSEGV"),
        (134, "SIGABRT"),
    ],
)
def test_known_codes_are_told_in_words(code: int, said: str) -> None:
    assert said in meaning(code)


@pytest.mark.parametrize("code", [0, 1, 2, 42, 128, 200, 255, 256, -9, 10**9])
def test_a_programs_own_codes_are_left_to_it(code: int) -> None:
    assert meaning(code) == ""
