"""Whether a release may go to an environment: one guard per rule, each met or not, each with its sentence."""

from __future__ import annotations

from dataclasses import dataclass

from keepflow.core.releases import Release


@dataclass(frozen=True, slots=True)
class Guard:
    """One rule of an environment, whether it is met, and the sentence that pages and refusals show."""

    code: str
    met: bool
    sentence: str


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


def guards(facts: Facts) -> tuple[Guard, ...]:
    """Check every rule, so that a page can show them all at once."""
    return (
        _origin(facts),
        _tested_elsewhere(facts),
        Guard("quarantined", facts.quarantine is None, facts.quarantine or "this digest did not do badly before"),
        _person(facts),
        _agent(facts),
        Guard("underway", facts.underway is None, facts.underway or "no other deployment is under way"),
        Guard("locked", facts.lock is None, facts.lock or "not locked"),
    )


def unmet(found: tuple[Guard, ...]) -> tuple[Guard, ...]:
    """Return the guards that stand in the way."""
    return tuple(guard for guard in found if not guard.met)


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
