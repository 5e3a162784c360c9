"""Roles and scopes: which verbs each grants; a role is held per project, a scope narrows one API token."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum


class Role(StrEnum):
    """What a person is in one project; each role can do all that the one before it can."""

    VIEWER = "viewer"  #: sees runs, logs, environments
    DEVELOPER = "developer"  #: starts and cancels runs, follows up what others deployed outside the rules
    TESTER = "tester"  #: marks a release tested
    RELEASE_MANAGER = "release-manager"  #: promotes, rolls back, locks, sets secrets of environments
    ADMIN = "admin"  #: gives roles


ORDER: tuple[Role, ...] = tuple(Role)

#: Verbs on a project, each with the least role that may do it.
PROJECT_VERBS: dict[str, Role] = {
    "see": Role.VIEWER,
    "run": Role.DEVELOPER,
    "cancel": Role.DEVELOPER,
    "pause": Role.DEVELOPER,
    "acknowledge": Role.DEVELOPER,
    "tested": Role.TESTER,
    "promote": Role.RELEASE_MANAGER,
    "rollback": Role.RELEASE_MANAGER,
    "lock": Role.RELEASE_MANAGER,
    "secrets": Role.RELEASE_MANAGER,
    "roles": Role.ADMIN,
}
#: Verbs on the server itself that everybody who signed in may do: look around, make API tokens of one's own.
OWN_VERBS = frozenset({"enter", "tokens"})
#: Verbs on the server itself; those beyond `OWN_VERBS` are for admins of the server.
SERVER_VERBS = OWN_VERBS | {"administer"}

#: Scopes of API tokens. Every scope can read; a token never does more than its owner may.
SCOPES: dict[str, frozenset[str]] = {
    "read": frozenset(),
    "run": frozenset({"run", "cancel", "pause"}),
    "test": frozenset({"tested"}),
    "promote": frozenset({"promote", "rollback", "lock", "acknowledge"}),
    "admin": frozenset(PROJECT_VERBS) | SERVER_VERBS,
}
_EVERY_SCOPE = frozenset({"see", "enter"})


def grants(roles: Iterable[Role], verb: str) -> bool:
    """Say whether any of these roles, held in one project, allows a project verb; unknown verbs are never allowed."""
    least = PROJECT_VERBS.get(verb)
    return least is not None and any(ORDER.index(role) >= ORDER.index(least) for role in roles)


def scopes_allow(scopes: Iterable[str], verb: str) -> bool:
    """Say whether a token with these scopes may be used for a verb; no scope at all allows nothing."""
    known = [scope for scope in scopes if scope in SCOPES]
    return bool(known) and (verb in _EVERY_SCOPE or any(verb in SCOPES[scope] for scope in known))
