"""What goes on a host: what was unused for too long, the longest unused beyond a budget, never what is needed (R77)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepflow.core.pruning import Item, Rule, over


def item(name: str, age: float, size: int = 10, needed: str = "") -> Item:
    return Item("image", name, size, -age, needed)


@pytest.mark.parametrize(
    ("rule", "items", "gone"),
    [
        (Rule(), [item("a", 999)], []),
        (Rule(unused=5), [item("a", 4), item("b", 6)], ["b"]),
        (Rule(unused=5), [item("a", 6, needed="a container has it")], []),
        (Rule(budget=20), [item("a", 1), item("b", 3), item("c", 2)], ["b"]),
        (Rule(budget=15), [item("a", 1), item("b", 3, needed="x"), item("c", 2)], ["c", "a"]),
        (Rule(unused=5, budget=25), [item("a", 1), item("b", 2), item("c", 9)], ["c"]),
        (Rule(budget=5), [], []),
    ],
)
def test_r77_what_goes(rule: Rule, items: list[Item], gone: list[str]) -> None:
    assert [one.name for one in over(rule, items, 0)] == gone


_items = st.lists(
    st.builds(
        Item, st.just("image"), st.uuids().map(str), st.integers(0, 100), st.floats(-100, 0), st.sampled_from(["", "x"])
    ),
    max_size=12,
)


@given(st.builds(Rule, st.floats(0, 100), st.integers(0, 500)), _items)
def test_r77_nothing_needed_goes_and_no_more_than_it_takes(rule: Rule, items: list[Item]) -> None:
    gone = over(rule, items, 0)
    assert not [one for one in gone if one.needed]
    kept = [one for one in items if one not in gone]
    if rule.budget:
        assert sum(one.size for one in kept) <= rule.budget or all(one.needed for one in kept)
    for one in gone:
        old = bool(rule.unused) and -one.used_at > rule.unused
        newer = sum(other.size for other in items if other.used_at >= one.used_at or other.needed)
        assert old or (rule.budget and newer > rule.budget)
