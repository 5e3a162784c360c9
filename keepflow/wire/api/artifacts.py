"""Files that jobs kept."""

from __future__ import annotations

from keepflow.wire.api.base import Answer, Items, Moment


class Artifact(Answer):
    """One file; `url` gives its bytes, `removed_at` says since when they are gone."""

    id: int
    job: str
    attempt: int
    path: str
    size: int
    sha256: str
    created_at: Moment
    expires_at: Moment | None
    removed_at: Moment | None
    url: str


class Artifacts(Items):
    """What the jobs of a run kept, in that order."""

    items: list[Artifact]
