"""GitHub: pushes, tags and pull requests, signed with `X-Hub-Signature-256`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keepflow.core.events import Event, EventKind, Parsed
from keepflow.core.text import quoted
from keepflow.errors import UsageError
from keepflow.forges import _github_shape as shape

#: Actions of a pull request that bring new code.
_NEW_CODE = frozenset({"opened", "synchronize", "reopened"})

delivery_id = shape.delivery_id
event_name = shape.event_name
verify = shape.verify


def parse(headers: Mapping[str, str], body: bytes) -> Parsed:
    """Return what a verified delivery is; raises nothing but UsageError."""
    return shape.parse(headers, body, {"push": shape.push, "pull_request": _pull_request})


def _pull_request(payload: Mapping[str, Any]) -> Parsed:
    action = shape.text(payload, "action")
    if action not in _NEW_CODE:
        return Parsed(word="ignored", sentence=f"a pull request that is {quoted(action)} brings no new code")
    request = shape.mapping(payload, "pull_request")
    head, number = shape.mapping(request, "head"), payload.get("number")
    if not isinstance(number, int) or isinstance(number, bool) or not 0 < number < 2**63:
        raise UsageError("'number' is missing or no number")
    base, before = shape.mapping(request, "base"), shape.optional(payload, "before")
    return Parsed(
        Event(
            kind=EventKind.PULL_REQUEST,
            ref=f"refs/pull/{number}/head",
            sha=shape.commit_id(shape.text(head, "sha")),
            before=shape.commit_id(before) if before else None,
            message=shape.optional(request, "title", shape.TEXT_LIMIT),
            author=shape.sender({"sender": request.get("user")}),
            actor=shape.sender(payload),
            url=shape.web_address(shape.optional(request, "html_url", 2048)),
            target=shape.branch(shape.text(base, "ref")),
            number=number,
            fork=not _same_repository(head, base),
        )
    )


def _same_repository(head: Mapping[str, Any], base: Mapping[str, Any]) -> bool:
    """Say whether both sides are the same repository; the head of a deleted fork has none."""
    ours, theirs = base.get("repo"), head.get("repo")
    if not isinstance(ours, Mapping) or not isinstance(theirs, Mapping):
        return False
    return isinstance(ours.get("id"), int) and ours.get("id") == theirs.get("id")
