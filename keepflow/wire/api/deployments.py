"""Deployments: tries to make a host serve a release, and what each proved."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from keepflow.wire.api.base import Answer, Moment, Request


class Change(Answer):
    """One setting that differs between what serves and what would serve; null means not set."""

    setting: str
    before: str | None
    after: str | None


class Phase(Answer):
    """One phase of a deployment, as the agent reported it."""

    phase: str
    at: Moment
    detail: str


class Deployment(Answer):
    """One try to make a host of an environment serve a release; `run` is the run that carries it out.

    `silence` is a sentence while nothing is heard of the agent that has it.
    """

    id: str
    project: str
    environment: str
    host: str
    kind: str
    phase: str
    reason_code: str
    reason: str
    silence: str | None
    requested_by: str
    note: str
    run: int
    built_by: int
    sha: str
    identity: str
    identity_before: str | None
    changes: list[Change]
    phases: list[Phase]
    canary: list[int]
    canary_step: int | None
    receipt: dict[str, Any] | None
    receipt_verdict: str
    log_tail: str
    requested_at: Moment
    accepted_at: Moment | None
    finished_at: Moment | None


class HostReceipt(Answer):
    """What one host of a run ended with; `receipt` is the agent's own account of the switch."""

    host: str
    environment: str
    deployment: str
    kind: str
    phase: str
    code: str
    reason: str
    identity: str
    receipt: dict[str, Any] | None


class RunReceipt(Answer):
    """What all hosts of a run proved together: probes sent and failed at their front doors, the p99 of the worst.

    `maintenance` is the seconds that visitors saw the maintenance page, added up.
    """

    project: str
    run: int
    state: str
    hosts: list[HostReceipt]
    sent: int
    failed: int
    p99_ms: float | None
    maintenance: float


class DeploymentReceipt(Answer):
    """The signed receipt of a deployment, as its agent sent it.

    `verdict` is what the master found when it came: `good`; `bad` when the agent's key did not sign it, or when it says
    something else than the agent reported; `none` when none came. `public_key` is the agent's as registered now.
    """

    deployment: str
    verdict: str
    envelope: dict[str, Any] | None
    agent: str
    public_key: str


class DeploymentPage(Answer):
    """Deployments of an environment, newest first."""

    items: list[Deployment]
    next: int | None


class Steering(Request):
    """A word to a canary that is under way; with `percent` only if it is at that step."""

    word: Literal["continue", "hold", "abort"]
    percent: int | None = Field(default=None, ge=1, le=99)


class Settlement(Request):
    """How a deployment ended whose end nobody knows: which release `serves` on the host, and how you know.

    `host` may be left out when the end on only one is unknown.
    """

    serves: Literal["new", "old"]
    why: str = Field(min_length=1, max_length=2000)
    host: str = Field(default="", max_length=40)


class Steered(Answer):
    """The hosts that were told."""

    hosts: list[str]
