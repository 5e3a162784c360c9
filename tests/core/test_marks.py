"""The newest mark of a person is what that person says; a rejection stands until they say otherwise."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from keepflow.core.marks import Mark, Verdict, rejections, standing, verifiers

IDENTITY = "sha256:" + "b" * 64


def mark(person: str, verdict: Verdict, at: int) -> Mark:
    return Mark(person, verdict, "d" * 32, IDENTITY, "", at)


def test_a_newer_mark_of_the_same_person_replaces_the_older() -> None:
    said = [mark("ann", Verdict.TESTED, 1), mark("ann", Verdict.REJECTED, 2)]
    assert (verifiers(said, None), [found.person for found in rejections(said)]) == ((), ["ann"])
    said.append(mark("ann", Verdict.TESTED, 3))
    assert (verifiers(said, None), rejections(said)) == (("ann",), ())


def test_nobody_takes_back_the_rejection_of_somebody_else() -> None:
    said = [mark("ann", Verdict.REJECTED, 1), mark("dee", Verdict.TESTED, 2)]
    assert [found.person for found in rejections(said)] == ["ann"]


def test_only_the_people_who_are_asked_verify() -> None:
    said = [mark("ann", Verdict.TESTED, 1), mark("dee", Verdict.TESTED, 2)]
    assert verifiers(said, frozenset({"dee"})) == ("dee",)
    assert verifiers(said, frozenset()) == ()


marks = st.lists(
    st.builds(mark, st.sampled_from(["ann", "bo", "cy"]), st.sampled_from(list(Verdict)), st.integers(0, 9)),
    max_size=12,
)


@given(marks)
def test_everybody_who_spoke_says_one_thing(said: list[Mark]) -> None:
    found = standing(said)
    assert {made.person for made in found} == {made.person for made in said}
    assert len(found) == len({made.person for made in found})
    assert all(made.at == max(other.at for other in said if other.person == made.person) for made in found)
    assert {made.person for made in rejections(said)}.isdisjoint(verifiers(said, None))
