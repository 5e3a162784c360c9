"""Runs with their jobs, attempts, steps and releases."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from keepflow.wire.api.base import Answer, Moment, Request
from keepflow.wire.api.deployments import Deployment


class Run(Answer):
    """One run. Every state but running and succeeded carries a reason code and a sentence."""

    id: int
    project: str
    number: int
    flow: str
    state: str
    reason_code: str
    reason: str
    event: str
    ref: str
    sha: str
    message: str
    actor: str
    why: str
    created_at: Moment
    started_at: Moment | None
    finished_at: Moment | None


class RunPage(Answer):
    """Runs, newest first; `next` is the `before` of the following page, or null at the end."""

    items: list[Run]
    next: int | None


class Step(Answer):
    """One command of a script job; `meaning` says what its exit code usually means."""

    ordinal: int
    name: str
    state: str
    exit_code: int | None
    meaning: str
    log_from: int
    log_to: int | None
    started_at: Moment
    finished_at: Moment | None


class Attempt(Answer):
    """One try at a job; `fence` names it everywhere, the log stream included."""

    n: int
    fence: int
    state: str
    reason_code: str
    reason: str
    agent: str | None
    exit_code: int | None
    log_bytes: int
    started_at: Moment | None
    finished_at: Moment | None
    steps: list[Step]


class Job(Answer):
    """One job of a run, with every attempt at it; a deploy job has its deployment."""

    key: str
    kind: str
    state: str
    reason_code: str
    reason: str
    needs: list[str]
    level: int  #: jobs of one level need nothing of each other
    stage: str
    when: str
    allow_failure: bool
    started_at: Moment | None
    finished_at: Moment | None
    attempts: list[Attempt]
    deployment: Deployment | None


class Release(Answer):
    """What a run produced; only what a registry holds is `promotable`."""

    origin: str
    repository: str
    reference: str
    image_id: str
    digest: str | None
    identity: str
    promotable: bool
    sha: str
    created_at: Moment


class RunDetail(Run):
    """One run with its jobs and releases."""

    superseded_by: int | None
    approved_by: str | None = None  #: who let the run of a fork begin
    forge_told: str | None = None  #: the status its forge has taken; null when the forge is told nothing
    forge_problem: str = ""  #: why the forge has not taken the newest one
    rerun_of: int | None
    reruns: list[int]
    delivery: int | None
    agent: str | None
    jobs: list[Job]
    releases: list[Release]


class RunsQuery(Request):
    """Which runs."""

    flow: str | None = Field(default=None, max_length=40)
    state: str | None = Field(default=None, max_length=12)
    branch: str | None = Field(default=None, max_length=255)
    before: int | None = Field(default=None, ge=1, le=2**53, description="`next` of the page before this one")
    limit: int = Field(default=30, ge=1, le=200)


def _as_text(value: Any) -> Any:
    """Read `true` and `3` as the texts they are for a script."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) else value


class NewRun(Request):
    """Start a flow by hand. `ref` is a branch, a tag or a full ref name; without it, the main branch.

    `commit` is one of its commits, by 7 or more digits of its id; without it, the newest.
    """

    flow: str = Field(max_length=40)
    ref: str = Field(default="", max_length=255)
    commit: str = Field(default="", max_length=64)
    inputs: dict[str, Annotated[str, BeforeValidator(_as_text)]] = Field(default_factory=dict, max_length=50)


class Started(Answer):
    """A run that was started."""

    run: int
    url: str


class Cancelled(Answer):
    """What became of a cancel: `cancelled`, `stopping`, or `too-late` for a deployment that was accepted."""

    word: str
    sentence: str


class Approved(Answer):
    """What follows from an approval, in words."""

    sentence: str


class LogQuery(Request):
    """Which part of a log; a `Range` header (bytes) asks for a part of what this comes to."""

    job: str | None = Field(default=None, max_length=60, description="only this job")
    attempt: int | None = Field(default=None, ge=1, description="with `job`: only this try at it")
    tail: int | None = Field(default=None, ge=1, le=100_000, description="only the last lines")
    grep: str | None = Field(
        default=None, min_length=1, max_length=500, description="only lines that hold this text, as `JOB:NUMBER: LINE`"
    )


class SearchQuery(Request):
    """What to look for in the logs of a flow."""

    grep: str = Field(min_length=1, max_length=500, description="a text, exactly as it is written")
    runs: int = Field(default=50, ge=1, le=500, description="in how many of the newest runs")
