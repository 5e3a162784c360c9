"""Environments: where releases serve, host by host."""

from __future__ import annotations

from pydantic import Field

from keepflow.wire.api.base import Answer, Items, Moment
from keepflow.wire.api.deployments import Deployment
from keepflow.wire.api.promotions import Readiness
from keepflow.wire.api.rules import Gate, Mark, Quarantine


class Serving(Answer):
    """What an environment was last made to serve."""

    deployment: str
    identity: str
    sha: str
    message: str
    ref: str
    run: int
    by: str
    since: Moment


class Candidate(Answer):
    """A release that can be offered for promotion; `serves` says that it is there already."""

    run: int
    identity: str
    sha: str
    message: str
    since: Moment
    serves: bool


class Host(Answer):
    """One host of an environment, by its agent's name. `drift` says that something else serves than was deployed."""

    agent: str
    online: bool
    serving: Serving | None
    observed: str | None
    drift: str | None
    underway: Deployment | None
    failed: Deployment | None


class Environment(Answer):
    """One place where a release serves, on one host or several.

    `serving` is what it was made to serve last, `mixed` says that not all of its hosts do; `drift`, `underway` and
    `failed` are what there is to say of any host. `hosts` has each of them.
    """

    project: str
    name: str
    hosts: list[Host]
    mixed: bool
    max_unavailable: int
    on_failure: str
    service: str
    branches: list[str]
    promote_from: str | None
    promotes_to: list[str]
    verified_by: list[str]
    approved_by: list[str]
    url: str
    serving: Serving | None
    drift: str | None
    underway: Deployment | None
    failed: Deployment | None
    locked_by: str | None
    locked_why: str | None
    quarantined: list[Quarantine]
    locked_at: Moment | None
    marks: list[Mark]
    gate: Gate | None
    candidates: list[Candidate]
    rollback: Readiness
    sentence: str


class Environments(Items):
    """All environments of a project, in the order of the board."""

    items: list[Environment]
    warnings: list[str] = Field(description="What is weak about how this project reaches production, and its cure")
