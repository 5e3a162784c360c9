"""Running again what has ended, and holding a project back."""

from __future__ import annotations

from pydantic import Field

from keepflow.wire.api.base import Answer, Moment, Request


class Again(Request):
    """Which jobs of an ended run work anew: all, those that did not succeed, or one and what comes after it."""

    failed: bool = Field(default=False, description="only what did not succeed, and what comes after that")
    job: str | None = Field(default=None, max_length=100, description="this job, what comes after it, what failed")


class PauseRequest(Request):
    """Why nothing new of a project may begin."""

    why: str = Field(max_length=2000)


class Pause(Answer):
    """Whether a project is paused, by whom and why."""

    paused_by: str | None
    paused_why: str | None
    paused_at: Moment | None
    sentence: str


class WhyJob(Answer):
    """One job that has something to say: its own sentence, and what its code means in general."""

    key: str
    state: str
    code: str
    reason: str
    meaning: str
    help: str


class Why(Answer):
    """Why a run is as it is: its own sentence, what that means in general, what helps, and who is in the way."""

    project: str
    number: int
    started: str
    state: str
    reason_code: str
    reason: str
    meaning: str
    help: str
    ahead: list[str]
    agents: list[str]
    jobs: list[WhyJob]
