"""Branch patterns: stars, slashes, exceptions, and no pattern that takes long."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepflow.core.patterns import Verdict, branch_allowed, decide, matches, pattern_problem


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("dev", "dev"),
        ("*", "dev"),
        ("release/*", "release/1.0"),
        ("**", "feature/a/b"),
        ("release/**", "release/1/2"),
        ("**/fix", "a/b/fix"),
        ("v?.?", "v1.2"),
        ("*-*", "a-b"),
        ("a**b", "ab"),
        ("***", "a/b"),
    ],
)
def test_a_pattern_fits(pattern: str, name: str) -> None:
    assert matches(pattern, name)


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("dev", "develop"),
        ("dev", "a/dev"),
        ("*", "feature/a"),
        ("release/*", "release/1/2"),
        ("release/*", "release"),
        ("v?.?", "v1/2"),
        ("?", ""),
        ("DEV", "dev"),
        ("dev", "dev\n"),
    ],
)
def test_a_pattern_does_not_fit(pattern: str, name: str) -> None:
    assert not matches(pattern, name)


def test_the_last_pattern_that_fits_decides() -> None:
    patterns = ("**", "!tmp/**", "tmp/keep")
    assert decide(patterns, "dev") == Verdict(True, "**")
    assert decide(patterns, "tmp/x") == Verdict(False, "!tmp/**")
    assert decide(patterns, "tmp/keep") == Verdict(True, "tmp/keep")


def test_no_pattern_selects_nothing() -> None:
    assert decide((), "dev") == Verdict(False, None)
    assert not branch_allowed((), "dev")
    assert not branch_allowed(("!dev",), "main")


pieces = st.sampled_from(["*", "**", "?", "a", "b", "/", "-"])


@given(st.lists(pieces, max_size=8).map("".join), st.text(alphabet="ab/-", max_size=10))
def test_a_pattern_means_the_same_as_its_regular_expression(pattern: str, name: str) -> None:
    stars = re.sub(r"\*\*+", "\0", pattern)
    words = {"\0": ".*", "*": "[^/]*", "?": "[^/]"}
    expression = "".join(words.get(character, re.escape(character)) for character in stars)
    assert matches(pattern, name) == (re.fullmatch(expression, name) is not None)


def test_the_worst_pattern_is_answered_at_once() -> None:
    started = time.process_time()
    assert not matches("*a" * 120 + "b", "a" * 255)
    assert not matches("**a" * 80 + "b", "a/" * 127)
    assert time.process_time() - started < 1


@pytest.mark.parametrize("pattern", ["dev", "release/*", "!release/old", "**", "v?", "a" * 255])
def test_an_ordinary_pattern_is_accepted(pattern: str) -> None:
    assert pattern_problem(pattern) is None


@pytest.mark.parametrize(
    "pattern",
    [
        "",
        "!",
        "refs/heads/dev",
        "refs/tags/v*",
        "origin/dev",
        "a b",
        "a..b",
        "/a",
        "a/",
        "a//b",
        "a.lock",
        "[ab]",
        "a~1",
        "a\n",
        "a" * 256,
    ],
)
def test_a_pattern_that_can_never_fit_is_a_problem(pattern: str) -> None:
    assert pattern_problem(pattern)
