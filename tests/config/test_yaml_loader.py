"""YAML means what it looks like, bombs do not go off, and everything has its line and column."""

from __future__ import annotations

import json
import time
import tracemalloc

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from keepflow.config import yaml_loader
from keepflow.config.yaml_loader import BYTES_LIMIT, DEPTH_LIMIT, NODES_LIMIT, load
from keepflow.errors import ConfigError, Problem
from tests.config.problems import places, problems


@pytest.fixture(autouse=True, params=["C", "Python"])
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test holds with libyaml and without it."""
    if request.param == "C":
        assert yaml.__with_libyaml__, "PyYAML without libyaml: the fast parser is not tested"
    else:
        monkeypatch.setattr(yaml_loader, "_LOADER", yaml.SafeLoader)


def value(text: str) -> object:
    document = load(text, "f.yml")
    assert not document.problems
    return document.value


WORDS = "on off yes no y n 22:30 0755 00 1_000 2026-01-02 0o8 0b1 .inf .nan << = 1e999"


@pytest.mark.parametrize("text", WORDS.split())
def test_what_looks_like_text_stays_text(text: str) -> None:
    assert value(f"a: {text}") == {"a": text}


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("12", 12),
        ("-7", -7),
        ("+5", 5),
        ("0", 0),
        ("0x1F", 31),
        ("0o17", 15),
        ("3.5", 3.5),
        ("3.10", 3.1),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("'12'", "12"),
        ('"true"', "true"),
        ("!!str 12", "12"),
        ("!!int '12'", 12),
        ("!!float 3.0", 3.0),
        ("! 12", "12"),
    ],
)
def test_the_core_schema_decides_the_rest(text: str, meaning: object) -> None:
    found = value(f"a: {text}")
    assert found == {"a": meaning}
    assert isinstance(found, dict)
    assert isinstance(found["a"], type(meaning))


@pytest.mark.parametrize("text", ["3.10", "0x1F", "+5", "1e3", "-0", "2.0", "0.50"])
def test_a_number_remembers_how_it_was_written(text: str) -> None:
    found = value(f"a: {text}")
    assert isinstance(found, dict)
    assert str(found["a"]) == text


@pytest.mark.parametrize("key", ["on", "22:30", "1", "true", "null", "0755", "3.10", "<<", "-"])
def test_a_key_is_the_text_it_looks_like(key: str) -> None:
    assert value(f"{key}: 1") == {key: 1}


def test_every_key_and_value_has_its_line_and_column() -> None:
    document = load("a: 1\nb:\n  - x\n  - {c: d}\n", "f.yml")
    assert document.mark(("a",)) == (1, 4)
    assert document.mark(("b",), key=True) == (2, 1)
    assert document.mark(("b", 1)) == (4, 5)
    assert document.mark(("b", 1, "c"), key=True) == (4, 6)
    assert document.mark(("b", 1, "c")) == (4, 9)


def test_what_is_not_there_is_found_at_the_nearest_part_above_it() -> None:
    document = load("a:\n  b: {c: 1}\n", "f.yml")
    assert document.mark(("a", "b", "x", 3)) == (2, 6)
    assert document.mark(("x",)) == (1, 1)


def test_columns_count_characters_and_not_bytes() -> None:
    assert load("é: {ü: x}", "f.yml").mark(("é", "ü")) == (1, 8)


def test_an_alias_stands_where_its_anchor_stands() -> None:
    document = load("a: &x {k: 1}\nb: *x\n", "f.yml")
    assert document.value == {"a": {"k": 1}, "b": {"k": 1}}
    assert document.mark(("b", "k")) == (1, 11)


def test_a_key_written_twice_is_a_problem_that_names_both_lines() -> None:
    document = load("a: 1\nb: 2\na: 3\n", "f.yml")
    assert places(document.problems) == [(3, 1, "duplicate-key")]
    assert document.problems[0].message == "'a' is written twice: on line 1 and again on line 3"


def test_all_lesser_problems_come_together() -> None:
    document = load("a: !x 1\n? [b]\n: 2\nc: !!int x\na: 1\n", "f.yml")
    assert places(sorted(document.problems)) == [
        (1, 4, "unknown-tag"),
        (2, 3, "bad-key"),
        (4, 4, "bad-tag"),
        (5, 1, "duplicate-key"),
    ]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("", (1, 1, "empty")),
        ("# only a comment\n", (1, 1, "empty")),
        ("a: 1\n---\nb: 2\n", (2, 1, "two-documents")),
        ("a: *x\n", (1, 4, "unknown-alias")),
        ("a: &x [*x]\n", (1, 8, "unknown-alias")),
        (b"a: \xff\n", (1, 1, "not-utf8")),
        ("a: \ud800\n", (1, 1, "not-utf8")),
        ("a: [1, 2\n", (2, 1, "syntax")),
        ("a: b: c\n", (1, 5, "syntax")),
        ("ok: 1\n\tb: 2\n", (2, 1, "syntax")),
        ("a: 1\nb: \x07\n", (2, 4, "syntax")),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_place(text: str | bytes, place: tuple[int, int, str]) -> None:
    assert places(problems(load, text, "f.yml")) == [place]


def test_a_tab_is_explained() -> None:
    assert "tabs" in problems(load, "a:\n\tb: 1\n", "f.yml")[0].message


@pytest.mark.parametrize("text", [r'a: "\ud800"', r'"\udc00": 1', r'a: "\ud800\udc00"'])
def test_half_a_character_is_refused(text: str) -> None:
    assert problems(load, text, "f.yml")[0].code == "syntax"


def test_a_byte_order_mark_is_no_part_of_the_file() -> None:
    assert load(b"\xef\xbb\xbfa: 1\n", "f.yml").value == {"a": 1}


def test_the_limits_are_allowed_and_one_more_is_not() -> None:
    exact = "a: " + "x" * (BYTES_LIMIT - 3)
    assert load(exact, "f.yml").value
    assert places(problems(load, exact + "x", "f.yml")) == [(1, 1, "too-large")]
    assert load("[" * DEPTH_LIMIT + "]" * DEPTH_LIMIT, "f.yml").value is not None
    assert places(problems(load, "[" * (DEPTH_LIMIT + 1), "f.yml")) == [(1, DEPTH_LIMIT + 1, "too-deep")]
    assert load("[" + "a," * (NODES_LIMIT - 1) + "]", "f.yml").value
    assert problems(load, "[" + "a," * NODES_LIMIT + "]", "f.yml")[0].code == "too-many"


def _laughs(levels: int, width: int) -> str:
    lines = [f"a0: &a0 [{','.join(['x'] * width)}]"]
    lines += [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * width)}]" for n in range(1, levels)]
    return "\n".join(lines)


BOMBS = [
    *(_laughs(levels, 9) for levels in range(5, 15)),
    *("[" * size for size in (100, 10_000, 200_000)),
    *("{a: " * size for size in (100, 10_000, 60_000)),
    *("- " * size for size in (100, 10_000, 100_000)),
    *("? " * size for size in (100, 100_000)),
    "a: &a [*a, *a]",
    "&a [&b [&c [*a, *b, *c]]]",
    "x: &x {" + ",".join(f"k{n}: v" for n in range(900)) + "}\n" + "\n".join(f"y{n}: *x" for n in range(200)),
    "[" + "&a x," * 40_000 + "]",
    "a: " + "9" * 200_000,
    "a: 1e" + "9" * 200_000,
    "a: 0x" + "f" * 200_000,
    "a: " + "1." * 100_000,
    "a: '" + "x" * 250_000,
    "a: |\n" + " x\n" * 60_000,
    "#" * 250_000,
    "\n" * 250_000,
    "a" * 250_000 + ": 1",
    "".join(f"k{n}: 1\n" for n in range(30_000)),
    "".join("k: 1\n" for _ in range(9_000)),
    "!!python/object/apply:os.system ['true']",
    "--- " * 60_000,
    "%TAG ! tag:x," + "y" * 100_000 + "\n--- a",
]


@pytest.mark.parametrize("bomb", BOMBS, ids=lambda text: f"{text[:12]!r}-{len(text)}")
def test_a_bomb_is_refused_or_read_quickly_and_in_little_memory(bomb: str, request: pytest.FixtureRequest) -> None:
    pure = "Python" in request.node.name
    started = time.process_time()
    _read_or_refuse(bomb)
    assert time.process_time() - started < (8 if pure else 1), "far above what a file of 256 KiB may cost"
    if not pure:
        tracemalloc.start()
        try:
            _read_or_refuse(bomb)
            assert tracemalloc.get_traced_memory()[1] < 20 * 1024 * 1024
        finally:
            tracemalloc.stop()


def _read_or_refuse(text: str | bytes) -> list[Problem]:
    try:
        load(text, "f.yml")
    except ConfigError as refused:
        return refused.problems
    return []


@given(st.text(max_size=200) | st.binary(max_size=200))
def test_any_bytes_are_read_or_refused_with_problems(data: str | bytes) -> None:
    for problem in _read_or_refuse(data):
        assert problem.line >= 1
        assert problem.column >= 1
        assert problem.code


ordinary = st.characters(max_codepoint=0xFFFF, exclude_categories=["Cs"])  # JSON escapes the others in two halves
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(ordinary, max_size=8)
    | st.floats(allow_nan=False, allow_infinity=False)
)
words = st.text(ordinary, min_size=1, max_size=6)
trees = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(ordinary, min_size=1, max_size=6), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(trees)
def test_json_is_read_as_json_reads_it(tree: object) -> None:
    text = json.dumps(tree)
    assert load(text, "f.yml").value == tree
