"""Forward or back: git decides, and where it knows no line the run numbers do."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from keepflow.core.direction import Ancestry, Direction, Point, direction

OLD, NEW = Point("a" * 40, 1), Point("b" * 40, 2)
NO_LINE = Ancestry(in_serving=False, has_serving=False)


def test_the_first_release_of_all_goes_nowhere_back() -> None:
    assert direction(None, OLD, NO_LINE) is Direction.FIRST


def test_an_ancestor_of_what_serves_is_back_whatever_its_run_number() -> None:
    rebuilt = Point(OLD.sha, 9)
    assert direction(NEW, rebuilt, Ancestry(in_serving=True, has_serving=False)) is Direction.BACK


def test_a_descendant_is_forward_even_when_it_was_built_before() -> None:
    assert direction(Point(OLD.sha, 9), NEW, Ancestry(in_serving=False, has_serving=True)) is Direction.FORWARD


def test_the_same_commit_built_again_is_neither() -> None:
    assert direction(NEW, Point(NEW.sha, 1), NO_LINE) is Direction.SAME


def test_of_diverged_histories_the_older_run_is_back() -> None:
    assert direction(NEW, OLD, NO_LINE) is Direction.BACK
    assert direction(OLD, NEW, NO_LINE) is Direction.FORWARD


points = st.builds(Point, st.sampled_from("abc"), st.integers(1, 5))


@given(points, points, st.booleans(), st.booleans())
def test_there_and_back_are_opposite(one: Point, other: Point, earlier: bool, later: bool) -> None:
    there = direction(one, other, Ancestry(earlier, later))
    back = direction(other, one, Ancestry(later, earlier))
    if one.sha == other.sha:
        assert there is back is Direction.SAME
    elif one.run != other.run or earlier != later:
        assert {there, back} == {Direction.FORWARD, Direction.BACK}
