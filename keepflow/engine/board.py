"""The board: all environments of a project side by side, what serves where, and what may be promoted to where."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection

from keepflow.core import drift
from keepflow.core.states import Phase
from keepflow.store import agents, deployments, environments, releases, runs
from keepflow.store.deployments import Deployment
from keepflow.store.environments import Environment
from keepflow.store.placements import Placement
from keepflow.store.projects import Project
from keepflow.store.releases import StoredRelease
from keepflow.store.runs import Run


@dataclass(frozen=True, slots=True)
class Standing:
    """One host of an environment: what was deployed there last, what its agent sees serving, and what goes on."""

    placement: Placement
    online: bool
    current: Deployment | None
    release: StoredRelease | None
    run: Run | None  #: the run that built what serves
    drift: str | None  #: sentence, when what serves is not what was deployed
    underway: Deployment | None
    failed: Deployment | None  #: the last try, when it came after `current` and did not end well


@dataclass(frozen=True, slots=True)
class Card:
    """One environment on the board, host by host, and what can be said of all of them."""

    environment: Environment
    hosts: tuple[Standing, ...]

    @property
    def newest(self) -> Standing | None:
        """The host that was made to serve something last; None when none ever was."""
        served = [host for host in self.hosts if host.current is not None]
        return max(served, key=lambda host: host.current.requested_at if host.current else 0, default=None)

    @property
    def mixed(self) -> bool:
        """Whether its hosts were last made to serve different things."""
        return len({host.current.identity if host.current else None for host in self.hosts}) > 1

    @property
    def drift(self) -> str | None:
        """What drifts, host by host when there are several."""
        several = len(self.hosts) > 1
        told = [f"{host.placement.host}: {host.drift}" if several else host.drift for host in self.hosts if host.drift]
        return "; ".join(told) or None

    @property
    def underway(self) -> Deployment | None:
        """The deployment that goes on now: the first that an agent works on, else the first that waits."""
        found = [host.underway for host in self.hosts if host.underway]
        return next((one for one in found if one.accepted_at is not None), found[0] if found else None)

    @property
    def failed(self) -> Deployment | None:
        """The last try that did not end well, when nothing came after it; the one that failed first of its kind."""
        return min((host.failed for host in self.hosts if host.failed), key=lambda one: one.requested_at, default=None)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A release that may be offered for an environment, and whether it already serves there."""

    stored: StoredRelease
    run: Run
    since: int
    serves: bool


@dataclass(frozen=True, slots=True)
class Board:
    """All environments of a project side by side, and per environment what could be promoted to it."""

    project: Project
    cards: list[Card]
    candidates: dict[str, list[Candidate]]


def board(conn: Connection, project: Project) -> Board:
    """Read the whole board of a project in one transaction."""
    found = environments.of_project(conn, project.id)
    cards = [_card(conn, environment) for environment in found]
    offered = {environment.name: candidates(conn, environment) for environment in found if environment.promote_from}
    return Board(project, cards, offered)


def candidates(conn: Connection, environment: Environment, limit: int = 10) -> list[Candidate]:
    """List the releases whose digest was `done` in the environment this one is promoted from, newest first."""
    source = environments.by_name(conn, environment.project_id, environment.promote_from or "")
    if source is None:
        return []
    current = deployments.currents(conn, environment.hosts)
    serving = {found.identity for found in current} if len(current) == len(environment.hosts) else set()
    seen: dict[str, Candidate] = {}
    for deployment in deployments.done(conn, source.id, limit * 2):
        stored = releases.by_id(conn, deployment.release_id)
        if stored.release.digest is None or stored.release.digest in seen:
            continue
        serves = serving == {stored.release.digest}
        since = deployment.finished_at or deployment.requested_at
        seen[stored.release.digest] = Candidate(stored, runs.by_id(conn, stored.run_id), since, serves)
    return list(seen.values())[:limit]


def _card(conn: Connection, environment: Environment) -> Card:
    holding = deployments.holding(conn, environment.id)
    return Card(environment, tuple(_standing(conn, placement, holding) for placement in environment.hosts))


def _standing(conn: Connection, placement: Placement, holding: list[Deployment]) -> Standing:
    agent = agents.by_name(conn, placement.host)
    current = deployments.by_id(conn, placement.current_id) if placement.current_id else None
    stored = releases.by_id(conn, current.release_id) if current else None
    last = deployments.of_host(conn, placement.environment_id, placement.host, 1)
    ended_badly = bool(last) and last[0].phase in (Phase.FAILED, Phase.REVERTED)
    return Standing(
        placement,
        agent is not None and agent.connected,
        current,
        stored,
        runs.by_id(conn, stored.run_id) if stored else None,
        drift.sentence(drift.differences(placement.observed, current.identity if current else None)),
        next((found for found in holding if found.host == placement.host), None),
        last[0] if ended_badly else None,
    )
