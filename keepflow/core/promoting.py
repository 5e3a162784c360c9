"""Whether a release may go to an environment: one guard per rule, each met or not, each with its sentence."""

from __future__ import annotations

from dataclasses import dataclass

from keepflow.core import marks as testers
from keepflow.core.direction import Direction
from keepflow.core.marks import Mark
from keepflow.core.patterns import branch_allowed
from keepflow.core.releases import Release
from keepflow.core.text import one_line
from keepflow.errors import Refused, UsageError

#: Characters a reason for breaking the glass has at least: a word is no reason.
LEAST_REASON = 15


@dataclass(frozen=True, slots=True)
class Guard:
    """One rule of an environment, whether it is met, and the sentence that pages and refusals show.

    An `overridable` guard may be broken by a release manager with a typed reason; no other ever is.
    """

    code: str
    met: bool
    sentence: str
    overridable: bool = False


@dataclass(frozen=True, slots=True)
class Host:
    """One host of an environment, by the name of its agent."""

    agent: str
    joined: bool
    connected: bool


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything the rules look at, read in one transaction."""

    release: Release
    release_name: str  #: how people call it, "keepwork#12"
    environment: str
    hosts: tuple[Host, ...]
    promote_from: str | None
    done_in_source: bool  #: a `done` deployment of this identity in `promote_from`
    approvers: tuple[str, ...]  #: groups of `approved_by`; empty = the role alone decides
    person: str
    person_has_role: bool
    person_in_group: bool
    underway: str | None  #: sentence naming a deployment that is not finished
    lock: str | None  #: sentence naming who locked it and why
    quarantine: str | None  #: sentence saying where and why this digest is under quarantine
    lock_is_own: bool = False  #: the person who presses is who locked it
    ref: str = ""  #: the ref of the run that built the release
    branches: tuple[str, ...] = ()  #: patterns of branches that may come here; empty = any
    marks: tuple[Mark, ...] = ()  #: every mark of this identity in `promote_from`
    verified_by: tuple[str, ...] = ()  #: groups whose members verify; empty = nobody must
    verifiers: frozenset[str] = frozenset()  #: the members of those groups
    four_eyes: bool = False
    max_age: float | None = None  #: seconds
    age: float | None = None  #: seconds since the newest done deployment of this identity in `promote_from`
    freeze: str | None = None  #: sentence naming the freeze window that holds now
    secrets: str | None = None  #: sentence naming secrets that neither the environment nor its hosts have
    gate: str | None = None  #: sentence saying that its gate was closed by something else than a promote
    direction: Direction = Direction.FORWARD
    rollback: bool = False  #: the person said the word


def guards(facts: Facts) -> tuple[Guard, ...]:
    """Check every rule, so that a page can show them all at once; rules that an environment does not have are left out.

    An environment may have only some of the rules, and those of the release and the person are always there.
    """
    found = (
        _origin(facts),
        _tested_elsewhere(facts),
        Guard(
            "quarantined",
            facts.quarantine is None,
            facts.quarantine or "this digest did not do badly before",
            overridable=True,
        ),
        _branch(facts),
        _rejected(facts),
        _verified(facts),
        _person(facts),
        _four_eyes(facts),
        _age(facts),
        _gate(facts),
        _direction(facts),
        Guard("freeze", facts.freeze is None, facts.freeze, overridable=True) if facts.freeze else None,
        _agent(facts),
        Guard("secrets", False, facts.secrets) if facts.secrets else None,
        Guard("underway", facts.underway is None, facts.underway or "no other deployment is under way"),
        Guard("locked", facts.lock is None, facts.lock or "not locked", overridable=not facts.lock_is_own),
    )
    return tuple(guard for guard in found if guard is not None)


def unmet(found: tuple[Guard, ...]) -> tuple[Guard, ...]:
    """Return the guards that stand in the way."""
    return tuple(guard for guard in found if not guard.met)


def may_break(found: tuple[Guard, ...]) -> bool:
    """Say whether something stands in the way, and all of it may be overridden by breaking the glass."""
    missing = unmet(found)
    return bool(missing) and all(guard.overridable for guard in missing)


def admit(found: tuple[Guard, ...], reason: str | None) -> tuple[Guard, ...]:
    """Let a promote through, and return the guards it overrides; `reason` is that of breaking the glass, or None.

    Raises Refused with the code of the first guard that stands in the way and cannot be overridden, and UsageError
    `short-reason`; Refused `nothing-to-break` when every rule is met.
    """
    missing = unmet(found)
    if reason is not None and len(reason.strip()) < LEAST_REASON:
        raise UsageError(
            f"breaking the glass needs a reason of at least {LEAST_REASON} characters", code="short-reason"
        )
    stands = missing if reason is None else tuple(guard for guard in missing if not guard.overridable)
    if stands:
        raise Refused("; ".join(guard.sentence for guard in stands), code=stands[0].code)
    if reason is not None and not missing:
        raise Refused("every rule is met, so there is no glass to break: promote without it", code="nothing-to-break")
    return missing


def _origin(facts: Facts) -> Guard:
    if facts.release.promotable:
        return Guard("origin", True, "the registry holds this digest")
    return Guard(
        "origin",
        False,
        f"{facts.release_name} was built but never pushed to a registry; only a pushed image can go to another machine",
    )


def _tested_elsewhere(facts: Facts) -> Guard:
    if facts.promote_from is None:
        return Guard(
            "promote-from",
            False,
            f"{facts.environment} names no `promote_from`, so nothing is promoted to it; its flows deploy to it",
        )
    if facts.done_in_source:
        return Guard("promote-from", True, f"this digest was deployed to {facts.promote_from} and served there")
    return Guard(
        "promote-from",
        False,
        f"this digest has no finished deployment in {facts.promote_from}; deploy it there first",
    )


def _branch(facts: Facts) -> Guard | None:
    if not facts.branches:
        return None
    allowed = ", ".join(facts.branches)
    branch = facts.ref.removeprefix("refs/heads/")
    if facts.ref.startswith("refs/heads/") and branch_allowed(facts.branches, branch):
        return Guard("branch", True, f"built from {one_line(branch, 80)}, which may come here")
    return Guard(
        "branch",
        False,
        f"{facts.environment} takes {allowed}, and {facts.release_name} is of {one_line(facts.ref, 80)}",
    )


def _rejected(facts: Facts) -> Guard | None:
    found = testers.rejections(facts.marks)
    if not found:
        return None
    newest = found[-1]
    why = f": {one_line(newest.note, 300)}" if newest.note else ""
    sentence = f"{newest.person} rejected it in {facts.promote_from}{why}"
    return Guard("rejected", False, sentence, overridable=True)


def _verified(facts: Facts) -> Guard | None:
    if not facts.verified_by:
        return None
    people = testers.verifiers(facts.marks, facts.verifiers)
    if people:
        return Guard("verified-by", True, f"marked tested by {', '.join(people)}", overridable=True)
    groups = " or ".join(facts.verified_by)
    sentence = f"nobody of {groups} has marked it tested in {facts.promote_from}: keepflow tested --in"
    return Guard("verified-by", False, f"{sentence} {facts.promote_from}", overridable=True)


def _four_eyes(facts: Facts) -> Guard | None:
    if not facts.four_eyes:
        return None
    people = testers.verifiers(facts.marks, facts.verifiers if facts.verified_by else None)
    others = [person for person in people if person != facts.person]
    if others:
        return Guard("four-eyes", True, f"{others[0]} verified it, {facts.person} approves it", overridable=True)
    sentence = (
        f"{facts.person} verified it alone, and who approves must be somebody else"
        if people
        else f"somebody else than {facts.person} must have marked it tested"
    )
    return Guard("four-eyes", False, sentence, overridable=True)


def _age(facts: Facts) -> Guard | None:
    if facts.max_age is None or facts.age is None:
        return None
    limit, source = span(facts.max_age), facts.promote_from
    if facts.age <= facts.max_age:
        return Guard("max-age", True, f"deployed to {source} {span(facts.age)} ago, within {limit}", overridable=True)
    sentence = f"deployed to {source} {span(facts.age)} ago, which is longer than {limit}; deploy it there again"
    return Guard("max-age", False, sentence, overridable=True)


def _gate(facts: Facts) -> Guard | None:
    if facts.gate is None or facts.direction is Direction.BACK:
        return None  # who says rollback means an older release
    return Guard("gate", False, facts.gate)


def _direction(facts: Facts) -> Guard | None:
    if facts.direction is not Direction.BACK:
        return None
    if facts.rollback:
        return Guard("rollback", True, f"{facts.release_name} is older than what serves; called a rollback")
    sentence = f"{facts.release_name} is older than what serves: going back must be called a rollback (--rollback)"
    return Guard("rollback", False, sentence)


def _person(facts: Facts) -> Guard:
    if not facts.person_has_role:
        return Guard("role", False, f"{facts.person} needs the role release-manager on this project")
    if facts.approvers and not facts.person_in_group:
        return Guard("approved-by", False, f"only members of {', '.join(facts.approvers)} may promote here")
    return Guard("approved-by", True, f"{facts.person} may promote here")


def _agent(facts: Facts) -> Guard:
    for host in facts.hosts:
        if not host.joined:
            return Guard("agent", False, f"agent {host.agent} has not joined yet: keepflow agent join")
        if not host.connected:
            return Guard("agent", False, f"agent {host.agent} is not connected")
    names = ", ".join(host.agent for host in facts.hosts)
    return Guard("agent", True, f"agent {names} is connected" if len(facts.hosts) == 1 else f"{names} are connected")


def span(seconds: float) -> str:
    """Return a length of time in its two largest units: `3d 4h`, `5m`, `12s`."""
    left, parts = int(seconds), list[str]()
    for letter, worth in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        amount, left = divmod(left, worth)
        if amount or (letter == "s" and not parts):
            parts.append(f"{amount}{letter}")
    return " ".join(parts[:2])
