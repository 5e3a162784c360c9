"""What every model of the REST API stands on: the two bases, a time as it is read, an error, a page of a list."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, WithJsonSchema


def rfc3339(micros: int) -> str:
    """Return a time as people and machines read it."""
    return datetime.fromtimestamp(micros / 1e6, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


Moment = Annotated[
    int,
    PlainSerializer(rfc3339, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "format": "date-time"}, mode="serialization"),
]


class Answer(BaseModel):
    """Base of everything that goes out."""

    model_config = ConfigDict(frozen=True)


class Request(BaseModel):
    """Base of everything that comes in; secrets never show in its repr."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Problem(Answer):
    """An error, as RFC 9457 has it; `code` is stable and meant for programs, `detail` for people."""

    type: str
    title: str
    status: int
    code: str
    detail: str


class PageQuery(Request):
    """Which page of a list."""

    before: int | None = Field(default=None, ge=1, le=2**53, description="`next` of the page before this one")
    limit: int = Field(default=30, ge=1, le=200)


class Items(Answer):
    """Base of short lists that come whole."""
