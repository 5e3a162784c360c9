"""Whether an environment may go back, and how ready its host is for it: guards and sentences, nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from keepflow.core.promoting import Guard, Host

#: hot: the old container still runs; cold: its image is on the host; re-pull: only the registry may still have it.
How = Literal["hot", "cold", "re-pull", "impossible"]
_BEST_FIRST: tuple[How, ...] = ("hot", "cold", "re-pull", "impossible")


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything the rules look at, read in one transaction."""

    environment: str
    hosts: tuple[Host, ...]
    person: str
    person_has_role: bool
    approvers: tuple[str, ...]  #: groups of `approved_by`; empty = the role alone decides
    person_in_group: bool
    named: bool  #: a person named the release to go back to
    target: str | None  #: identity to go back to; None = there is none
    was_done: bool  #: the target served there before
    serving: str | None  #: identity that was deployed last
    serving_is_rollback: bool
    underway: str | None  #: sentence naming a deployment that is not finished
    lock: str | None  #: sentence naming who locked it and why


@dataclass(frozen=True, slots=True)
class Readiness:
    """What going back would take, as the host says it, in one sentence."""

    how: How
    sentence: str


def guards(facts: Facts) -> tuple[Guard, ...]:
    """Check every rule, so that a page can show them all at once."""
    return (_target(facts), *may_act(facts))


def may_act(facts: Facts) -> tuple[Guard, ...]:
    """Check what holds for everything a person does to an environment by hand, wherever it leads."""
    return (
        _person(facts),
        _agents(facts),
        Guard("underway", facts.underway is None, facts.underway or "no other deployment is under way"),
        Guard("locked", facts.lock is None, facts.lock or "not locked"),
    )


def readiness(kept: dict[str, dict[str, object]] | None, target: str | None, *, promotable: bool) -> Readiness:
    """Say what going back to a release would take; `kept` is what the host last said it keeps, by identity."""
    if target is None:
        return Readiness("impossible", "impossible, because nothing served here before")
    if kept is None:
        return Readiness("re-pull", "not known: the agent has not said what it keeps")
    found = kept.get(target, {})
    how = found.get("how")
    if how == "hot":
        return Readiness("hot", "hot: the container of the release before still runs")
    if how in ("cold", "staged"):
        size = found.get("bytes")
        shown = f" ({size / 1e6:.0f} MB)" if isinstance(size, int) and size else ""
        return Readiness("cold", f"cold: its image is on the host's disk{shown}")
    if promotable:
        return Readiness("re-pull", "slow: its image is no longer on the host and must come from the registry")
    return Readiness(
        "impossible", "impossible, because its image is no longer on the host and was never pushed to a registry"
    )


def worst(found: Mapping[str, Readiness]) -> Readiness:
    """Return how ready all hosts together are: as ready as the least ready one, which is named when it matters."""
    host, least = max(found.items(), key=lambda pair: _BEST_FIRST.index(pair[1].how))
    alike = len({one.how for one in found.values()}) == 1
    return least if alike else Readiness(least.how, f"{least.sentence} ({host})")


def _target(facts: Facts) -> Guard:
    if facts.target is None:
        return Guard("nothing-before", False, f"nothing served in {facts.environment} before, so there is no way back")
    if facts.target == facts.serving:
        return Guard("serves-already", False, f"{facts.target[:19]} serves in {facts.environment} already")
    if not facts.was_done:
        return Guard(
            "never-served", False, f"{facts.target[:19]} never served in {facts.environment}; promote it instead"
        )
    if facts.serving_is_rollback and not facts.named:
        return Guard(
            "rolled-back-already",
            False,
            f"{facts.environment} was rolled back already; name the release to go to, if you mean another one",
        )
    return Guard("was-done", True, f"{facts.target[:19]} served in {facts.environment} before")


def _person(facts: Facts) -> Guard:
    if not facts.person_has_role:
        return Guard("role", False, f"{facts.person} needs the role release-manager on this project")
    if facts.approvers and not facts.person_in_group:
        return Guard("approved-by", False, f"only members of {', '.join(facts.approvers)} may do that here")
    return Guard("approved-by", True, f"{facts.person} may do that here")


def _agents(facts: Facts) -> Guard:
    missing = [host.agent for host in facts.hosts if not host.joined]
    if missing:
        return Guard("agent", False, f"agent {', '.join(missing)} has not joined yet: keepflow agent join")
    away = [host.agent for host in facts.hosts if not host.connected]
    if away:
        by_hand = "on a host itself `keepflow agent rollback` works without the master"
        return Guard("agent", False, f"agent {', '.join(away)} is not connected; {by_hand}")
    return Guard("agent", True, f"agent {', '.join(host.agent for host in facts.hosts)} is connected")
