"""What a forge is told: one word for each state, one short line, and where (R66)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepflow.core.states import FINAL, Reason, State
from keepflow.core.statuses import Verdict, place_of, status_of, verdict_of


def test_r66_every_state_has_a_word_and_only_what_has_ended_is_not_pending() -> None:
    for state in State:
        assert (verdict_of(state, "exit") is Verdict.PENDING) is (state not in FINAL)
    assert verdict_of(State.FAILED, "exit") is Verdict.FAILURE
    assert verdict_of(State.FAILED, "system") is Verdict.ERROR
    assert verdict_of(State.SKIPPED, "skip-word") is Verdict.SUCCESS


@given(st.sampled_from(list(State)), st.text(max_size=400))
def test_a_description_is_one_short_printable_line(state: State, sentence: str) -> None:
    made = status_of("a" * 40, "dev", state, Reason("x", sentence), "https://ci.example.org/1")
    assert made.description.isprintable()
    assert 0 < len(made.description) <= 140
    assert made.context == "keepflow/dev"


@pytest.mark.parametrize(
    ("repo", "host", "name"),
    [
        ("https://git.example.org/team/shop.git", "git.example.org", "team/shop"),
        ("https://git.example.org:8443/group/sub/shop", "git.example.org", "group/sub/shop"),
        ("git@git.example.org:team/shop.git", "git.example.org", "team/shop"),
        ("ssh://git@git.example.org:2222/team/shop.git", "git.example.org", "team/shop"),
    ],
)
def test_the_api_is_found_by_the_address_of_the_repository(repo: str, host: str, name: str) -> None:
    assert place_of(repo, "", "/api/v1") == (f"https://{host}/api/v1", name)
    assert place_of(repo, "", "/api/v3", {host: "https://api.example.org"}) == ("https://api.example.org", name)
    assert place_of(repo, "https://other.example.org", "/api/v3") == ("https://other.example.org", name)


@pytest.mark.parametrize("repo", ["/srv/git/shop.git", "file:///srv/shop.git", ""])
def test_a_repository_on_this_machine_has_no_api(repo: str) -> None:
    assert place_of(repo, "https://forge.example.org", "/api/v1") is None
