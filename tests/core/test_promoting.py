"""The guards of a promote: allowed exactly when every rule is met, and each refusal names its rule."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from keepflow.core.promoting import Facts, Host, guards, unmet
from keepflow.core.releases import Release

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
)


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
    )
    found = guards(given_facts)
    assert (unmet(found) == ()) == wanted
    assert len({guard.code for guard in found}) == len(found)
    assert all(guard.sentence for guard in found)
