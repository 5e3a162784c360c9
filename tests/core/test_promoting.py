"""The guards of a promote: allowed exactly when every rule is met, and each refusal names its rule."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepflow.core.direction import Direction
from keepflow.core.marks import Mark, Verdict
from keepflow.core.promoting import Facts, Host, admit, guards, may_break, unmet
from keepflow.core.releases import Release
from keepflow.errors import Refused, UsageError

PUSHED = Release("registry", "sha256:" + "a" * 64, "registry.example.org:5000/keepwork", "sha256:" + "b" * 64)
LOCAL = Release("local:box", "sha256:" + "a" * 64, "keepwork")

GOOD = Facts(
    release=PUSHED,
    release_name="keepwork#7",
    environment="production",
    hosts=(Host("prod-1", joined=True, connected=True),),
    promote_from="test",
    done_in_source=True,
    approvers=("release-managers",),
    person="bo",
    person_has_role=True,
    person_in_group=True,
    underway=None,
    lock=None,
    quarantine=None,
)


def test_everything_met_lets_the_button_be_pressed() -> None:
    assert unmet(guards(GOOD)) == ()


def test_an_image_that_was_never_pushed_is_never_promoted() -> None:
    assert [guard.code for guard in unmet(guards(replace(GOOD, release=LOCAL)))] == ["origin"]


def test_a_digest_that_never_served_in_test_is_refused_by_name() -> None:
    found = unmet(guards(replace(GOOD, done_in_source=False)))
    assert [guard.code for guard in found] == ["promote-from"]
    assert "test" in found[0].sentence


def test_nothing_is_promoted_to_an_environment_without_promote_from() -> None:
    assert "promote-from" in {guard.code for guard in unmet(guards(replace(GOOD, promote_from=None)))}


def test_the_role_is_needed_even_inside_the_group() -> None:
    assert [guard.code for guard in unmet(guards(replace(GOOD, person_has_role=False)))] == ["role"]


def test_the_group_is_needed_even_with_the_role() -> None:
    assert [guard.code for guard in unmet(guards(replace(GOOD, person_in_group=False)))] == ["approved-by"]


def test_without_approvers_the_role_alone_decides() -> None:
    assert unmet(guards(replace(GOOD, approvers=(), person_in_group=False))) == ()


def mark(person: str, verdict: Verdict, note: str = "") -> Mark:
    return Mark(person, verdict, "d" * 32, PUSHED.identity, note, 1)


STRICT = replace(
    GOOD,
    marks=(mark("ann", Verdict.TESTED),),
    verified_by=("testers",),
    verifiers=frozenset({"ann"}),
    four_eyes=True,
    max_age=3600.0,
    age=60.0,
    branches=("master", "release/*"),
    ref="refs/heads/master",
)


def codes(facts: Facts) -> list[str]:
    return [guard.code for guard in unmet(guards(facts))]


def test_a_strict_environment_lets_through_what_keeps_every_rule() -> None:
    assert codes(STRICT) == []
    assert "marked tested by ann" in [guard.sentence for guard in guards(STRICT)]


@pytest.mark.parametrize(
    ("change", "missing", "word"),
    [
        ({"marks": ()}, ["verified-by", "four-eyes"], "testers"),
        ({"verifiers": frozenset({"dee"})}, ["verified-by", "four-eyes"], "testers"),
        ({"person": "ann"}, ["four-eyes"], "alone"),
        ({"age": 3601.0}, ["max-age"], "1h"),
        ({"ref": "refs/heads/dev"}, ["branch"], "release/*"),
        ({"ref": "refs/tags/master"}, ["branch"], "refs/tags/master"),
        ({"freeze": "production is frozen until Monday"}, ["freeze"], "Monday"),
        ({"gate": "superseded by keepwork#8"}, ["gate"], "keepwork#8"),
        ({"direction": Direction.BACK}, ["rollback"], "--rollback"),
        ({"lock": "locked by cy: it burns"}, ["locked"], "it burns"),
    ],
)
def test_each_rule_that_is_not_kept_is_named(change: dict[str, Any], missing: list[str], word: str) -> None:
    found = unmet(guards(replace(STRICT, **change)))
    assert [guard.code for guard in found] == missing
    assert word in found[0].sentence


def test_a_rejection_stands_in_the_way_whoever_else_said_tested() -> None:
    said = (mark("ann", Verdict.TESTED), mark("dee", Verdict.REJECTED, "the login page is white"))
    [found] = unmet(guards(replace(STRICT, marks=said)))
    assert (found.code, found.sentence) == ("rejected", "dee rejected it in test: the login page is white")


def test_who_also_tested_may_approve_when_somebody_else_tested_too() -> None:
    said = (mark("ann", Verdict.TESTED), mark("bo", Verdict.TESTED))
    assert codes(replace(STRICT, marks=said, verifiers=frozenset({"ann", "bo"}))) == []


def test_going_back_is_let_through_by_its_word_and_asks_for_no_open_gate() -> None:
    assert codes(replace(STRICT, direction=Direction.BACK, gate="lapsed", rollback=True)) == []
    assert codes(replace(STRICT, rollback=True)) == [], "the word does no harm to what goes forward"


def test_only_rules_of_people_and_time_may_be_broken() -> None:
    facts = replace(
        STRICT,
        person="ann",
        marks=(mark("ann", Verdict.TESTED), mark("dee", Verdict.REJECTED)),
        age=9999.0,
        freeze="frozen",
        lock="locked",
    )
    assert {guard.code for guard in guards(facts) if guard.overridable} == {
        "rejected",
        "verified-by",
        "four-eyes",
        "max-age",
        "freeze",
        "locked",
        "quarantined",
    }
    assert not next(guard for guard in guards(replace(facts, lock_is_own=True)) if guard.code == "locked").overridable


REASON = "the shop takes no orders, and this mends it"


def test_breaking_the_glass_returns_what_it_overrides() -> None:
    found = guards(replace(STRICT, marks=(), freeze="frozen"))
    assert [guard.code for guard in admit(found, REASON)] == ["verified-by", "four-eyes", "freeze"]
    with pytest.raises(Refused) as refused:
        admit(found, None)
    assert refused.value.code == "verified-by"


def test_the_glass_breaks_only_with_a_reason_and_only_when_something_is_behind_it() -> None:
    with pytest.raises(UsageError) as short:
        admit(guards(replace(STRICT, marks=())), "  it is urgent     ")
    assert short.value.code == "short-reason"
    with pytest.raises(Refused) as needless:
        admit(guards(STRICT), REASON)
    assert needless.value.code == "nothing-to-break"


facts = st.builds(
    Facts,
    release=st.sampled_from([PUSHED, LOCAL]),
    release_name=st.just("keepwork#7"),
    environment=st.just("production"),
    hosts=st.lists(
        st.builds(Host, st.sampled_from(["prod-1", "prod-2"]), st.booleans(), st.booleans()), min_size=1
    ).map(tuple),
    promote_from=st.sampled_from([None, "test"]),
    done_in_source=st.booleans(),
    approvers=st.sampled_from([(), ("release-managers",)]),
    person=st.just("bo"),
    person_has_role=st.booleans(),
    person_in_group=st.booleans(),
    underway=st.sampled_from([None, "busy"]),
    lock=st.sampled_from([None, "locked by ann"]),
    quarantine=st.sampled_from([None, "it died last time"]),
    lock_is_own=st.booleans(),
    ref=st.sampled_from(["refs/heads/master", "refs/heads/dev"]),
    branches=st.sampled_from([(), ("master",)]),
    marks=st.lists(
        st.builds(mark, st.sampled_from(["ann", "bo", "dee"]), st.sampled_from(list(Verdict))), max_size=3
    ).map(tuple),
    verified_by=st.sampled_from([(), ("testers",)]),
    verifiers=st.sampled_from([frozenset({"ann"}), frozenset({"ann", "bo"})]),
    four_eyes=st.booleans(),
    max_age=st.sampled_from([None, 60.0]),
    age=st.sampled_from([None, 60.0, 61.0]),
    freeze=st.sampled_from([None, "frozen"]),
    gate=st.sampled_from([None, "lapsed"]),
    direction=st.sampled_from(list(Direction)),
    rollback=st.booleans(),
)


def said_last(given_facts: Facts, verdict: Verdict) -> set[str]:
    last = {made.person: made.verdict for made in given_facts.marks}  # all at one time: the later in the list counts
    return {person for person, said in last.items() if said is verdict}


def asked(given_facts: Facts) -> frozenset[str]:
    return given_facts.verifiers if given_facts.verified_by else frozenset({"ann", "bo", "dee"})


@given(facts, st.sampled_from([None, REASON]))
def test_what_never_may_be_broken_never_is(given_facts: Facts, reason: str | None) -> None:
    found = guards(given_facts)
    if (reason is None and unmet(found)) or (reason is not None and not may_break(found)):
        with pytest.raises(Refused):
            admit(found, reason)
        return
    overridden = admit(found, reason)
    assert overridden == unmet(found)
    assert bool(overridden) == (reason is not None)
    hard = {"origin", "promote-from", "branch", "role", "approved-by", "gate", "rollback", "agent", "underway"}
    assert hard.isdisjoint({guard.code for guard in overridden})


@given(facts)
def test_a_promote_is_allowed_exactly_when_every_condition_holds(given_facts: Facts) -> None:
    wanted = (
        given_facts.release.promotable
        and given_facts.promote_from is not None
        and given_facts.done_in_source
        and given_facts.person_has_role
        and (given_facts.person_in_group or not given_facts.approvers)
        and all(host.joined and host.connected for host in given_facts.hosts)
        and given_facts.underway is None
        and given_facts.lock is None
        and given_facts.quarantine is None
        and (not given_facts.branches or given_facts.ref == "refs/heads/master")
        and not said_last(given_facts, Verdict.REJECTED)
        and (not given_facts.verified_by or said_last(given_facts, Verdict.TESTED) & given_facts.verifiers)
        and (
            not given_facts.four_eyes
            or (said_last(given_facts, Verdict.TESTED) & asked(given_facts)) - {given_facts.person}
        )
        and (given_facts.max_age is None or given_facts.age is None or given_facts.age <= given_facts.max_age)
        and given_facts.freeze is None
        and (given_facts.gate is None or given_facts.direction is Direction.BACK)
        and (given_facts.direction is not Direction.BACK or given_facts.rollback)
    )
    found = guards(given_facts)
    assert (unmet(found) == ()) == bool(wanted)
    assert len({guard.code for guard in found}) == len(found)
    assert all(guard.sentence for guard in found)
