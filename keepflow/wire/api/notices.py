"""What channels were told, and whether it got there."""

from __future__ import annotations

from pydantic import Field

from keepflow.wire.api.base import Answer, Items, Moment, Request


class Notice(Answer):
    """One thing one recipient of a channel is told. `state` is waiting, sent or failed (given up).

    `delivery` goes along on every try and never changes.
    """

    id: int
    channel: str
    recipient: str
    delivery: str
    word: str
    title: str
    url: str
    state: str
    tries: int
    error: str
    made_at: Moment
    next_at: Moment | None
    ended_at: Moment | None


class NoticePage(Answer):
    """Notices, newest first."""

    items: list[Notice]
    next: int | None


class NoticesQuery(Request):
    """Which notices."""

    state: str | None = Field(default=None, pattern="^(waiting|sent|failed)$")
    before: int | None = Field(default=None, ge=1, le=2**53, description="`next` of the page before this one")
    limit: int = Field(default=30, ge=1, le=200)


class Channel(Answer):
    """Somebody who is told. `trouble` is why its newest notice did not get there, "" when it did."""

    name: str
    kind: str
    recipients: list[str]
    on: list[str]
    projects: list[str]
    trouble: str


class Channels(Items):
    """Every channel of the server file."""

    items: list[Channel]


class Tried(Answer):
    """What became of telling one recipient; `problem` is "" when it took the notice."""

    recipient: str
    problem: str


class Tries(Items):
    """What became of a test, recipient by recipient."""

    items: list[Tried]
