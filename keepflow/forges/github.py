"""GitHub: pushes, tags and pull requests, signed with `X-Hub-Signature-256`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from keepflow.core.events import Parsed
from keepflow.core.statuses import CommitStatus, Request, place_of, quoted_path
from keepflow.core.webhooks import FoundHook, HookPlace, PullPlace
from keepflow.forges import _github_shape as shape

#: Actions of a pull request that bring new code.
_NEW_CODE = frozenset({"opened", "synchronize", "reopened"})
#: Where the API is of a host that has it elsewhere.
_HOSTS = {"github.com": "https://api.github.com"}

delivery_id = shape.delivery_id
event_name = shape.event_name
verify = shape.verify


def parse(headers: Mapping[str, str], body: bytes) -> Parsed:
    """Return what a verified delivery is; raises nothing but UsageError."""
    readers: dict[str, shape.Reader] = {
        "push": shape.push,
        "pull_request": partial(shape.pull_request, new_code=_NEW_CODE),
    }
    return shape.parse(event_name(headers), headers, body, readers)


def set_status(repo: str, api: str, token: str, status: CommitStatus) -> Request | None:
    """Return the request that tells GitHub a status of a commit; None when the repository's address names no host."""
    place = place_of(repo, api, "/api/v3", _HOSTS)
    if place is None:
        return None
    base, name = place
    return shape.status_request(f"{base}/repos/{quoted_path(name, '/')}", f"Bearer {token}", status)


def hook_place(repo: str, api: str, token: str) -> HookPlace | None:
    """Return how the webhooks of a GitHub repository are asked for; None when its address names no host."""
    place = place_of(repo, api, "/api/v3", _HOSTS)
    if place is None:
        return None
    base, name = place
    return HookPlace(
        url=f"{base}/repos/{quoted_path(name, '/')}/hooks",
        headers=_headers(token),
        body=_hook,
        read=_found,
        page=f"{name}: Settings, Webhooks",
        rights="a fine-grained token of this repository with Webhooks: read and write",
    )


def _hook(address: str, secret: str) -> Mapping[str, Any]:
    config = {"url": address, "content_type": "json", "secret": secret, "insecure_ssl": "0"}
    return {"name": "web", "active": True, "events": ["push", "pull_request"], "config": config}


def _found(hook: Mapping[str, Any]) -> FoundHook:
    url, content_type, events = shape.hook_facts(hook)
    told = "*" in events or {"push", "pull_request"} <= events
    return FoundHook(shape.hook_id(hook), url, told and hook.get("active") is True and content_type in ("json", "form"))


def pull_place(repo: str, api: str, token: str) -> PullPlace | None:
    """Return how the pull requests of a GitHub repository are asked for; None when its address names no host."""
    place = place_of(repo, api, "/api/v3", _HOSTS)
    if place is None:
        return None
    base, name = place
    url = f"{base}/repos/{quoted_path(name, '/')}/pulls"
    return PullPlace(url, _headers(token), shape.open_pull_request, "a token that may read pull requests")


def _headers(token: str) -> Mapping[str, str]:
    return {
        "Authorization": f"Bearer {token}",
        "Accept": "application/vnd.github+json",
        "X-GitHub-Api-Version": "2022-11-28",
    }
