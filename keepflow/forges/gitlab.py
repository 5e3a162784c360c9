"""GitLab: pushes, tags and merge requests, with the old secret token or the new signing token (`whsec_…`).

Which of the two counts is said by the secret itself: who has a signing token is believed nothing that is not signed.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import time
from collections.abc import Mapping
from typing import Any

from keepflow.core.events import Event, EventKind, Parsed
from keepflow.core.names import is_ref
from keepflow.core.statuses import CommitStatus, Request, Verdict, place_of, quoted_path
from keepflow.core.text import quoted
from keepflow.core.webhooks import FoundHook, HookPlace, PullPlace
from keepflow.errors import BadSignature, UsageError
from keepflow.forges import _github_shape as shape

_SIGNING = b"whsec_"
_TOLERANCE = 300  #: seconds that the time of a signature may be off
#: GitLab's own words where they are others; it has none for what came to no end.
_STATES = {Verdict.FAILURE: "failed", Verdict.ERROR: "failed"}
_TOLD = ("push_events", "tag_push_events", "merge_requests_events")  #: of a hook: what keepflow reads
_IDS = ("webhook-id", "idempotency-key", "x-gitlab-event-uuid")


def delivery_id(headers: Mapping[str, str]) -> str | None:
    """Return the sender's id of this delivery, the same on a redelivery; None when it is missing or unusable."""
    return shape.usable_id(next((headers[name] for name in _IDS if headers.get(name)), ""))


def event_name(headers: Mapping[str, str]) -> str:
    """Return the name of the event, empty when the header is missing."""
    return headers.get("x-gitlab-event", "")


def verify(headers: Mapping[str, str], body: bytes, secret: bytes) -> None:
    """Check the token, or the signature over id, time and body; raises BadSignature, for a missing secret too."""
    if not secret:
        raise BadSignature("this hook has no secret, so nothing it says is believed", code="no-secret")
    if secret.startswith(_SIGNING):
        _verify_signature(headers, body, secret)
        return
    given = headers.get("x-gitlab-token", "")
    if not given:
        raise BadSignature("the header X-Gitlab-Token is missing: set the hook's secret token", code="unsigned")
    if not hmac.compare_digest(secret, given.encode(errors="replace")):
        raise BadSignature("the token does not fit: the hook's secret token is another one")


def _verify_signature(headers: Mapping[str, str], body: bytes, secret: bytes) -> None:
    """Check what Standard Webhooks describe: any of the signatures listed may be the one."""
    given, sent_id = headers.get("webhook-signature", ""), headers.get("webhook-id", "")
    sent_at = headers.get("webhook-timestamp", "")
    if not given or not sent_id or not sent_at:
        raise BadSignature("the header webhook-signature is missing: set the hook's signing token", code="unsigned")
    try:
        key = base64.b64decode(secret.removeprefix(_SIGNING), validate=True)
    except binascii.Error:
        raise BadSignature(
            "the project's hook secret is no signing token: whsec_ and base64", code="no-secret"
        ) from None
    signed = b".".join((sent_id.encode(errors="replace"), sent_at.encode(errors="replace"), body))
    expected = b"v1," + base64.b64encode(hmac.digest(key, signed, "sha256"))
    parts = given.encode(errors="replace").split(b" ")
    if not any(hmac.compare_digest(expected, part) for part in parts):
        raise BadSignature(
            "the signature does not fit: the hook's signing token is another one, or something was changed"
        )
    if not sent_at.isdecimal() or abs(time.time() - int(sent_at[:18])) > _TOLERANCE:
        raise BadSignature(
            "the signature is not of now: an old delivery, or one of the two clocks is wrong", code="stale"
        )


def parse(headers: Mapping[str, str], body: bytes) -> Parsed:
    """Return what a verified delivery is; raises nothing but UsageError."""
    readers = {"Push Hook": _push, "Tag Push Hook": _push, "Merge Request Hook": _merge_request}
    return shape.parse(event_name(headers), headers, body, readers)


def _push(payload: Mapping[str, Any]) -> Parsed:
    ref, after = shape.text(payload, "ref"), shape.text(payload, "after")
    if not is_ref(ref) or not ref.startswith(("refs/heads/", "refs/tags/")):
        raise UsageError(f"{quoted(ref)} is not a branch or tag that git could have")
    if shape.is_zeros(after):
        return Parsed(word="deleted", sentence=f"{quoted(ref)} was deleted; nothing to build")
    if payload.get("checkout_sha") is None:
        return Parsed(word="no-commit", sentence=f"the push to {quoted(ref)} names no commit; nothing to build")
    is_tag, before = ref.startswith("refs/tags/"), shape.optional(payload, "before")
    sha = shape.commit_id(shape.text(payload, "checkout_sha") if is_tag else after)  # a tag's `after` may be no commit
    newest = _commit(payload, sha)
    author = newest.get("author")
    return Parsed(
        Event(
            kind=EventKind.TAG if is_tag else EventKind.PUSH,
            ref=ref,
            sha=sha,
            before=None if not before or shape.is_zeros(before) else shape.commit_id(before),
            message=shape.optional(newest, "message", shape.TEXT_LIMIT),
            author=shape.optional(author, "name") if isinstance(author, Mapping) else "",
            actor=shape.optional(payload, "user_username"),
            url=shape.web_address(shape.optional(newest, "url", 2048)),
        )
    )


def _commit(payload: Mapping[str, Any], sha: str) -> Mapping[str, Any]:
    """Return what is said of a commit among those of a push; GitLab lists 20 at most, and none on a new branch."""
    found = payload.get("commits")
    listed = found if isinstance(found, list) else []
    return next((each for each in listed if isinstance(each, Mapping) and each.get("id") == sha), {})


def _merge_request(payload: Mapping[str, Any]) -> Parsed:
    request = shape.mapping(payload, "object_attributes")
    action, before = shape.text(request, "action"), shape.optional(request, "oldrev")
    over = action in ("close", "merge")
    if not over and action not in ("open", "reopen") and not (action == "update" and before):
        return Parsed(
            word="ignored", sentence=f"the action {quoted(action)} of a merge request brings no new code here"
        )
    event = _proposed(request, payload.get("user"))
    return shape.closed(event) if over else Parsed(event)


def _open_merge_request(request: Mapping[str, Any]) -> Event | None:
    """Read a merge request as the API shows it; None for one that is closed. Raises UsageError for a wrong field."""
    if request.get("state") != "opened":
        return None
    told = {**request, "last_commit": {"id": request.get("sha")}, "url": request.get("web_url")}
    return _proposed(told, request.get("author"))


def _proposed(request: Mapping[str, Any], user: object) -> Event:
    before = shape.optional(request, "oldrev")
    number = shape.whole_number(request, "iid")
    actor = shape.optional(user, "username") if isinstance(user, Mapping) else ""
    source, target = request.get("source_project_id"), request.get("target_project_id")
    return Event(
        kind=EventKind.PULL_REQUEST,
        ref=f"refs/merge-requests/{number}/head",
        sha=shape.commit_id(shape.text(shape.mapping(request, "last_commit"), "id")),
        before=shape.commit_id(before) if before else None,
        message=shape.optional(request, "title", shape.TEXT_LIMIT),
        author=actor,
        actor=actor,
        url=shape.web_address(shape.optional(request, "url", 2048)),
        target=shape.branch(shape.text(request, "target_branch")),
        number=number,
        fork=not (isinstance(source, int) and source == target),
    )


def set_status(repo: str, api: str, token: str, status: CommitStatus) -> Request | None:
    """Return the request that tells GitLab a status of a commit; None when the repository's address names no host."""
    place = place_of(repo, api, "/api/v4")
    if place is None:
        return None
    base, name = place
    url = f"{base}/projects/{quoted_path(name)}/statuses/{status.sha}"
    body = {
        "state": _STATES.get(status.verdict, status.verdict.value),
        "name": status.context,
        "description": status.description,
        "target_url": status.url,
    }
    return Request(url, body, {"PRIVATE-TOKEN": token})


def hook_place(repo: str, api: str, token: str) -> HookPlace | None:
    """Return how the webhooks of a GitLab project are asked for; None when its address names no host."""
    place = place_of(repo, api, "/api/v4")
    if place is None:
        return None
    base, name = place
    return HookPlace(
        url=f"{base}/projects/{quoted_path(name)}/hooks",
        headers=_headers(token),
        body=_hook,
        read=_found,
        page=f"{name}: Settings, Webhooks",
        rights="a project token with the role Maintainer and the scope api",
        change="PUT",
    )


def _hook(address: str, secret: str) -> Mapping[str, Any]:
    """Return what makes a hook; raises UsageError for a signing token, which only a person can set there."""
    if secret.encode().startswith(_SIGNING):
        raise UsageError("only a person sets a signing token at GitLab; without hook_secret_file a secret is made")
    told = dict.fromkeys(_TOLD, True)
    return {"url": address, "token": secret, "enable_ssl_verification": True, **told}


def _found(hook: Mapping[str, Any]) -> FoundHook:
    dead = hook.get("alert_status") in ("disabled", "temporarily_disabled")
    fits = all(hook.get(name) is True for name in _TOLD) and not hook.get("push_events_branch_filter")
    return FoundHook(shape.hook_id(hook), shape.optional(hook, "url", 2048), fits, dead)


def pull_place(repo: str, api: str, token: str) -> PullPlace | None:
    """Return how the merge requests of a GitLab project are asked for; None when its address names no host."""
    place = place_of(repo, api, "/api/v4")
    if place is None:
        return None
    base, name = place
    url = f"{base}/projects/{quoted_path(name)}/merge_requests"
    return PullPlace(url, _headers(token), _open_merge_request, "a token that may read merge requests")


def _headers(token: str) -> Mapping[str, str]:
    return {"PRIVATE-TOKEN": token, "Accept": "application/json"}
