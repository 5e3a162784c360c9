"""Roles grow, scopes narrow."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepflow.core.roles import ORDER, OWN_VERBS, PROJECT_VERBS, SCOPES, SERVER_VERBS, Role, grants, scopes_allow

VERBS = sorted(frozenset(PROJECT_VERBS) | SERVER_VERBS)


@pytest.mark.parametrize(
    ("role", "verbs"),
    [
        (Role.VIEWER, {"see"}),
        (Role.DEVELOPER, {"see", "run", "cancel", "pause", "acknowledge"}),
        (Role.TESTER, {"see", "run", "cancel", "pause", "acknowledge", "tested"}),
        (Role.RELEASE_MANAGER, {verb for verb in PROJECT_VERBS if verb != "roles"}),
        (Role.ADMIN, set(PROJECT_VERBS)),
    ],
)
def test_each_role_grants_exactly_its_verbs(role: Role, verbs: set[str]) -> None:
    assert {verb for verb in VERBS if grants([role], verb)} == verbs


@given(st.lists(st.sampled_from(ORDER)), st.sampled_from(VERBS))
def test_the_highest_role_decides(roles: list[Role], verb: str) -> None:
    highest = max(roles, key=ORDER.index, default=None)
    assert grants(roles, verb) == (highest is not None and grants([highest], verb))


@given(st.text())
def test_an_unknown_verb_is_granted_to_nobody(verb: str) -> None:
    if verb not in PROJECT_VERBS:
        assert not grants(ORDER, verb)


@pytest.mark.parametrize(
    ("scopes", "verbs"),
    [
        ([], set()),
        (["unknown"], set()),
        (["read"], {"see", "enter"}),
        (["run"], {"see", "enter", "run", "cancel", "pause"}),
        (["test"], {"see", "enter", "tested"}),
        (["promote"], {"see", "enter", "promote", "rollback", "lock", "acknowledge"}),
        (["admin"], set(VERBS)),
    ],
)
def test_each_scope_allows_exactly_its_verbs(scopes: list[str], verbs: set[str]) -> None:
    assert {verb for verb in VERBS if scopes_allow(scopes, verb)} == verbs


@given(st.lists(st.sampled_from(sorted(SCOPES))), st.sampled_from(VERBS))
def test_more_scopes_never_allow_less(scopes: list[str], verb: str) -> None:
    assert scopes_allow(scopes, verb) == any(scopes_allow([scope], verb) for scope in scopes)


def test_only_an_admin_scope_makes_tokens() -> None:
    assert "tokens" in OWN_VERBS
    assert [scope for scope in SCOPES if scopes_allow([scope], "tokens")] == ["admin"]
