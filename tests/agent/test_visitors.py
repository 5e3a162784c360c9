"""How visitors fare: when a share of failures ends a watch, and when it is what it always was."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import pytest

from keepflow.agent.visitors import Limits, Tally, Visitors
from keepflow.ports import Site, Visit
from keepflow.proxies.none import NoProxy

SITE = Site("shop", "main", "shop.test", "80", "127.0.0.2:1", "127.0.0.3:1", "p" * 16, "b" * 16)
_moments = itertools.count(1_000.0)


class Recorded(NoProxy):
    """A proxy whose record is a list."""

    def __init__(self, visits: list[Visit]) -> None:
        self.record = visits

    def visits(self, site: Site, position: int) -> tuple[list[Visit], int]:
        """Return the rest of the list."""
        return self.record[position:], len(self.record)


def given(requests: int, errors: int, meant: str, *, by: str | None = None, status: int = 500) -> Iterable[Visit]:
    """Return so many visits of which some failed."""
    for number in range(requests):
        bad = number < errors
        yield Visit(next(_moments), status if bad else 200, meant, (by or meant) if bad else meant)


def judged(*visits: Iterable[Visit], **limits: float) -> str | None:
    return Visitors(Recorded([*itertools.chain(*visits)]), SITE, "green", Limits(**limits)).trouble()  # type: ignore[arg-type]  # enough is a whole number here


@pytest.mark.parametrize(
    ("old", "new", "bad"),
    [
        ((100, 0), (100, 5), False),
        ((100, 0), (100, 6), True),
        ((100, 10), (100, 15), False),
        ((100, 10), (100, 16), True),
        ((0, 0), (20, 1), False),
        ((0, 0), (20, 2), True),
        ((0, 0), (19, 19), False),
        ((2, 2), (100, 20), True),
        ((0, 0), (0, 0), False),
    ],
)
def test_more_failures_than_before_and_than_allowed_are_trouble(
    old: tuple[int, int], new: tuple[int, int], bad: bool
) -> None:
    sentence = judged(given(*old, "blue"), given(*new, "green"))
    assert (sentence is not None) == bad


def test_the_sentence_holds_the_evidence() -> None:
    sentence = judged(given(120, 0, "blue"), given(31, 7, "green"))
    assert sentence is not None
    assert "7 of 31 (22.6 %) requests of visitors failed in the new release" in sentence
    assert "0 of 120 (0 %) in the old one; more than 5 % is not allowed" in sentence


def test_an_answer_of_the_old_slot_in_place_of_the_new_is_a_failure_no_visitor_saw() -> None:
    visitors = Visitors(Recorded([*given(40, 30, "green", by="blue", status=200)]), SITE, "green", Limits())
    assert visitors.trouble() is not None
    assert visitors.to_json()["new"] == {"requests": 40, "errors": 30, "caught": 30}


def test_a_storm_after_a_long_calm_is_seen_before_the_calm_is_outweighed() -> None:
    record = [*given(5000, 0, "green")]
    visitors = Visitors(Recorded(record), SITE, "green", Limits())
    assert visitors.trouble() is None
    last = record[-1].at
    record += [Visit(last + number / 100, 500, "green", "green") for number in range(30)]
    assert visitors.trouble() is not None
    assert visitors.new.errors / visitors.new.requests < 0.05


def test_old_errors_of_the_old_slot_do_not_weigh_on_the_new_one() -> None:
    assert judged(given(50, 50, "blue"), given(50, 0, "green")) is None


def test_a_site_that_always_failed_a_little_is_measured_by_what_it_did_when_it_was_new() -> None:
    record = Recorded([*given(3, 0, "blue"), *given(100, 12, "green")])
    assert Visitors(record, SITE, "green", Limits()).trouble() is not None
    assert Visitors(record, SITE, "green", Limits(), Tally(1000, 100)).trouble() is None
    sentence = Visitors(record, SITE, "green", Limits(), Tally(1000, 10)).trouble()
    assert sentence is not None
    assert "10 of 1003 (0.997 %) in the old one" in sentence


def test_the_limits_are_the_hosts() -> None:
    assert judged(given(10, 1, "green"), errors=0.05, enough=10) is not None
    assert judged(given(10, 1, "green"), errors=0.1, enough=10) is None


def test_what_the_other_slot_answered_before_the_proof_is_not_held_against_the_release_but_failures_are() -> None:
    caught = [*given(100, 100, "green", by="blue", status=200)]
    proxy = Recorded([*caught, *given(100, 5, "green")])
    visitors = Visitors(proxy, SITE, "green", Limits())
    assert visitors.trouble() is not None
    visitors.proven()
    assert visitors.trouble() is None
    assert visitors.new == Tally(100, 5, 0)
    proxy.record += given(40, 40, "green", by="blue", status=200)
    assert visitors.trouble() is not None
