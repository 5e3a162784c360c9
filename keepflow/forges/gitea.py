"""Gitea and Forgejo: GitHub's shape with headers of their own, and a signature over the JSON, also of a form."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from functools import partial
from typing import Any

from keepflow.core.events import Parsed
from keepflow.core.statuses import CommitStatus, Request, place_of, quoted_path
from keepflow.core.text import quoted
from keepflow.core.webhooks import FoundHook, HookPlace, PullPlace
from keepflow.errors import BadSignature, UsageError
from keepflow.forges import _github_shape as shape

#: Actions of a pull request that bring new code.
_NEW_CODE = frozenset({"opened", "synchronized", "reopened"})


def delivery_id(headers: Mapping[str, str]) -> str | None:
    """Return the sender's id of this delivery, the same on a redelivery; None when it is missing or unusable."""
    return shape.usable_id(_header(headers, "delivery"))


def event_name(headers: Mapping[str, str]) -> str:
    """Return the name of the event, empty when the header is missing."""
    return _header(headers, "event")


def verify(headers: Mapping[str, str], body: bytes, secret: bytes) -> None:
    """Check the signature over the JSON; raises BadSignature, for a missing secret or header too."""
    given = _header(headers, "signature")
    if not secret:
        raise BadSignature("this hook has no secret, so nothing it says is believed", code="no-secret")
    if not given:
        raise BadSignature("the header X-Gitea-Signature is missing: set the hook's secret", code="unsigned")
    try:
        signed = shape.signed_text(headers, body)
    except UsageError as error:
        raise BadSignature(f"the form holds nothing that could be signed: {error.message}") from None
    if not hmac.compare_digest(hmac.digest(secret, signed, "sha256").hex().encode(), given.encode(errors="replace")):
        raise BadSignature("the signature does not fit: the hook's secret is another one, or the body was changed")


def parse(headers: Mapping[str, str], body: bytes) -> Parsed:
    """Return what a verified delivery is; raises nothing but UsageError."""
    readers: dict[str, shape.Reader] = {
        "push": shape.push,
        "pull_request": partial(shape.pull_request, new_code=_NEW_CODE),
        "create": _created,
        "delete": _deleted,
    }
    return shape.parse(event_name(headers), headers, body, readers)


def _created(payload: Mapping[str, Any]) -> Parsed:
    name = quoted(shape.text(payload, "ref"))
    return Parsed(word="ignored", sentence=f"{name} is new; the push of it comes as an event of its own")


def _deleted(payload: Mapping[str, Any]) -> Parsed:
    return Parsed(word="deleted", sentence=f"{quoted(shape.text(payload, 'ref'))} was deleted; nothing to build")


def _header(headers: Mapping[str, str], what: str) -> str:
    return headers.get(f"x-forgejo-{what}") or headers.get(f"x-gitea-{what}", "")


def set_status(repo: str, api: str, token: str, status: CommitStatus) -> Request | None:
    """Return the request that tells Gitea a status of a commit; None when the repository's address names no host."""
    place = place_of(repo, api, "/api/v1")
    if place is None:
        return None
    base, name = place
    return shape.status_request(f"{base}/repos/{quoted_path(name, '/')}", f"token {token}", status)


def hook_place(repo: str, api: str, token: str) -> HookPlace | None:
    """Return how the webhooks of a Gitea repository are asked for; None when its address names no host.

    Its `PATCH` changes everything of a hook but the secret.
    """
    place = place_of(repo, api, "/api/v1")
    if place is None:
        return None
    base, name = place
    return HookPlace(
        url=f"{base}/repos/{quoted_path(name, '/')}/hooks",
        headers=_headers(token),
        body=_hook,
        read=_found,
        page=f"{name}: Settings, Webhooks",
        rights="a token with write:repository, of an account that administers the repository",
        paging="limit=30&page=",
        keeps_secret=True,
    )


def _hook(address: str, secret: str) -> Mapping[str, Any]:
    config = {"url": address, "content_type": "json", "secret": secret}
    events = ["push", "delete", "pull_request", "pull_request_sync"]
    return {"type": "gitea", "active": True, "events": events, "config": config}


def _found(hook: Mapping[str, Any]) -> FoundHook:
    url, content_type, events = shape.hook_facts(hook)
    told = {"push", "delete", "pull_request", "pull_request_sync"} <= events
    reads = hook.get("type") in ("gitea", "forgejo") and content_type in ("json", "form")
    return FoundHook(shape.hook_id(hook), url, told and reads and hook.get("active") is True)


def pull_place(repo: str, api: str, token: str) -> PullPlace | None:
    """Return how the pull requests of a Gitea repository are asked for; None when its address names no host."""
    place = place_of(repo, api, "/api/v1")
    if place is None:
        return None
    base, name = place
    url = f"{base}/repos/{quoted_path(name, '/')}/pulls"
    return PullPlace(url, _headers(token), shape.open_pull_request, "a token that may read pull requests")


def _headers(token: str) -> Mapping[str, str]:
    return {"Authorization": f"token {token}", "Accept": "application/json"}
