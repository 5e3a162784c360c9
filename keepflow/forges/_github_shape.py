"""Webhooks in GitHub's shape: the signature over raw bytes, the body as JSON or form, the push in keepflow's words.

Nothing here trusts a field: what is missing or of another type becomes a UsageError, text is bounded and made safe to
store, and a ref or commit id that git itself would refuse never becomes an event.
"""

from __future__ import annotations

import hmac
import json
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any
from urllib.parse import parse_qsl

from keepflow.core.events import Event, EventKind, Parsed
from keepflow.core.names import is_ref, is_sha
from keepflow.core.statuses import CommitStatus, Request
from keepflow.core.text import quoted
from keepflow.errors import BadSignature, UnsupportedMedia, UsageError

TEXT_LIMIT = 16_384  #: characters of a commit message that are kept
_SHORT = 256
_FORM_FIELDS = 8
_DELIVERY_ID = re.compile(r"[A-Za-z0-9-]{1,100}")

Reader = Callable[[Mapping[str, Any]], Parsed]


def delivery_id(headers: Mapping[str, str]) -> str | None:
    """Return the sender's id of this delivery, the same on a redelivery; None when it is missing or unusable."""
    return usable_id(headers.get("x-github-delivery", ""))


def usable_id(given: str) -> str | None:
    """Return the id of a delivery, or None when it is none."""
    return given if _DELIVERY_ID.fullmatch(given) else None


def event_name(headers: Mapping[str, str]) -> str:
    """Return the name of the event, empty when the header is missing."""
    return headers.get("x-github-event", "")


def parse(name: str, headers: Mapping[str, str], body: bytes, readers: Mapping[str, Reader]) -> Parsed:
    """Return what a delivery is, read by the reader of the event `name`; raises nothing but UsageError."""
    payload = read_payload(headers, body)
    if name == "ping":
        return Parsed(word="ping", sentence="the hook works")
    if name in readers:
        return readers[name](payload)
    return Parsed(word="unknown-event", sentence=f"events of the kind {quoted(name)} start nothing")


def verify(headers: Mapping[str, str], body: bytes, secret: bytes) -> None:
    """Check `X-Hub-Signature-256` over the body as it came; raises BadSignature, for a missing secret or header too."""
    given = headers.get("x-hub-signature-256", "")
    if not secret:
        raise BadSignature("this hook has no secret, so nothing it says is believed", code="no-secret")
    if not given:
        raise BadSignature("the header X-Hub-Signature-256 is missing: set the hook's secret", code="unsigned")
    expected = f"sha256={hmac.digest(secret, body, 'sha256').hex()}"
    if not hmac.compare_digest(expected.encode(), given.encode(errors="replace")):
        raise BadSignature("the signature does not fit: the hook's secret is another one, or the body was changed")


def read_payload(headers: Mapping[str, str], body: bytes) -> dict[str, Any]:
    """Return the JSON object of a delivery, sent as JSON or as the form field `payload`.

    Raises UnsupportedMedia for any other content type, and UsageError for a body that is not one plain JSON object:
    a key written twice, NaN, nesting without end.
    """
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        return _json_object(_utf8(body))
    if kind == "application/x-www-form-urlencoded":
        return _json_object(_form_payload(_utf8(body)))
    raise UnsupportedMedia(
        f"the content type {quoted(kind)} is not read here; choose application/json in the hook's settings"
    )


def push(payload: Mapping[str, Any]) -> Parsed:
    """Read a push of a branch or tag. Raises UsageError when a field that matters is missing or wrong."""
    ref, after = text(payload, "ref"), text(payload, "after")
    if not is_ref(ref) or not ref.startswith(("refs/heads/", "refs/tags/")):
        raise UsageError(f"{quoted(ref)} is not a branch or tag that git could have")
    if payload.get("deleted") is True or is_zeros(after):
        return Parsed(word="deleted", sentence=f"{quoted(ref)} was deleted; nothing to build")
    head = payload.get("head_commit")
    if head is None:
        return Parsed(word="no-commit", sentence=f"the push to {quoted(ref)} names no commit; nothing to build")
    if optional(payload, "before") == after:
        return Parsed(word="ping", sentence=f"a test: nothing was pushed to {quoted(ref)}")
    is_tag = ref.startswith("refs/tags/")
    sha = text(mapping(payload, "head_commit"), "id") if is_tag else after  # an annotated tag's `after` is no commit
    before = optional(payload, "before")
    return Parsed(
        Event(
            kind=EventKind.TAG if is_tag else EventKind.PUSH,
            ref=ref,
            sha=commit_id(sha),
            before=None if not before or is_zeros(before) else commit_id(before),
            forced=payload.get("forced") is True,
            message=optional(mapping(payload, "head_commit"), "message", TEXT_LIMIT),
            author=_author(mapping(payload, "head_commit")),
            actor=sender(payload),
            url=web_address(optional(mapping(payload, "head_commit"), "url", 2048)),
        )
    )


def pull_request(payload: Mapping[str, Any], new_code: Collection[str]) -> Parsed:
    """Read a pull request; `new_code` are the actions that bring some. Raises UsageError for a wrong field."""
    action = text(payload, "action")
    if action not in new_code and action != "closed":
        return Parsed(word="ignored", sentence=f"a pull request that is {quoted(action)} brings no new code")
    event = _proposed(payload)
    return Parsed(event) if action in new_code else closed(event)


def closed(event: Event) -> Parsed:
    """Return the word about a pull request that was closed, merged or not."""
    sentence = f"pull request {event.number} was closed; what waited for it is over"
    return Parsed(word="closed", sentence=sentence, closed=event)


def open_pull_request(request: Mapping[str, Any]) -> Event | None:
    """Read a pull request as the API shows it; None for one that is closed. Raises UsageError for a wrong field."""
    if request.get("state") != "open":
        return None
    return _proposed({"number": request.get("number"), "pull_request": request, "sender": request.get("user")})


def _proposed(payload: Mapping[str, Any]) -> Event:
    request = mapping(payload, "pull_request")
    head, base = mapping(request, "head"), mapping(request, "base")
    number, before = whole_number(payload, "number"), optional(payload, "before")
    return Event(
        kind=EventKind.PULL_REQUEST,
        ref=f"refs/pull/{number}/head",
        sha=commit_id(text(head, "sha")),
        before=commit_id(before) if before else None,
        message=optional(request, "title", TEXT_LIMIT),
        author=sender({"sender": request.get("user")}),
        actor=sender(payload),
        url=web_address(optional(request, "html_url", 2048)),
        target=branch(text(base, "ref")),
        number=number,
        fork=not _same_repository(head, base),
    )


def status_request(repository: str, authorization: str, status: CommitStatus) -> Request:
    """Return the request that tells a status; `repository` is its address in the API."""
    body = {
        "state": status.verdict.value,
        "context": status.context,
        "description": status.description,
        "target_url": status.url,
    }
    headers = {"Authorization": authorization, "Accept": "application/json"}
    return Request(f"{repository}/statuses/{status.sha}", body, headers)


def hook_id(hook: Mapping[str, Any]) -> str:
    """Return the id of a webhook as it stands in addresses; raises UsageError for anything but a number."""
    return str(whole_number(hook, "id"))


def hook_facts(hook: Mapping[str, Any]) -> tuple[str, str, frozenset[str]]:
    """Return where a webhook tells, how its body is written, and of which events; what is missing is empty."""
    config, events = hook.get("config"), hook.get("events")
    known = config if isinstance(config, Mapping) else {}
    names = frozenset(name for name in events if isinstance(name, str)) if isinstance(events, list) else frozenset()
    return optional(known, "url", 2048), optional(known, "content_type"), names


def sender(payload: Mapping[str, Any]) -> str:
    """Return the login of who caused the event, as the forge itself names it; empty when it names nobody."""
    found = payload.get("sender")
    return optional(found, "login") if isinstance(found, Mapping) else ""


def mapping(payload: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Return a field that must be an object."""
    value = payload.get(key)
    if not isinstance(value, Mapping):
        raise UsageError(f"{quoted(key)} is missing or not an object")
    return value


def text(payload: Mapping[str, Any], key: str) -> str:
    """Return a field that must be text."""
    value = payload.get(key)
    if not isinstance(value, str):
        raise UsageError(f"{quoted(key)} is missing or not text")
    return value


def optional(payload: Mapping[str, Any], key: str, limit: int = _SHORT) -> str:
    """Return a field that may be missing, safe to store: no NUL, no half character, at most `limit` long."""
    value = payload.get(key)
    if not isinstance(value, str):
        return ""
    return value[:limit].replace("\0", "").encode(errors="replace").decode()


def whole_number(payload: Mapping[str, Any], key: str) -> int:
    """Return a field that must be the number of something: 1 or more, and one that a database can hold."""
    value = payload.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 2**63:
        raise UsageError(f"{quoted(key)} is missing or no number")
    return value


def commit_id(value: str) -> str:
    """Return a full commit id; raises UsageError for anything else."""
    if not is_sha(value):
        raise UsageError(f"{quoted(value)} is not a commit id")
    return value


def branch(name: str) -> str:
    """Return the full ref name of a branch; raises UsageError for what git could not have."""
    ref = f"refs/heads/{name}"
    if not is_ref(ref):
        raise UsageError(f"{quoted(name)} is not a branch that git could have")
    return ref


def web_address(value: str) -> str:
    """Return an address that may become a link on a page, else nothing."""
    return value if value.startswith(("https://", "http://")) and value.isprintable() and " " not in value else ""


def _author(head: Mapping[str, Any]) -> str:
    author = head.get("author")
    return optional(author, "name") or optional(author, "username") if isinstance(author, Mapping) else ""


def _same_repository(head: Mapping[str, Any], base: Mapping[str, Any]) -> bool:
    """Say whether both sides are the same repository; the head of a deleted fork has none."""
    ours, theirs = base.get("repo"), head.get("repo")
    if not isinstance(ours, Mapping) or not isinstance(theirs, Mapping):
        return False
    return isinstance(ours.get("id"), int) and ours.get("id") == theirs.get("id")


def is_zeros(value: str) -> bool:
    """Say whether this is what forges write for no commit at all."""
    return len(value) in (40, 64) and not value.strip("0")


def _utf8(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise UsageError("the body is not UTF-8 text") from None


def signed_text(headers: Mapping[str, str], body: bytes) -> bytes:
    """Return what is signed by those who sign the JSON alone, also when it comes as a form; raises UsageError."""
    is_form = headers.get("content-type", "").lower().startswith("application/x-www-form-urlencoded")
    return _form_payload(_utf8(body)).encode() if is_form else body


def _form_payload(body: str) -> str:
    try:
        fields = parse_qsl(body, keep_blank_values=True, max_num_fields=_FORM_FIELDS, errors="strict")
    except ValueError:  # too many fields, or escapes that are not UTF-8
        raise UsageError("the form cannot be read") from None
    found = [value for name, value in fields if name == "payload"]
    if len(found) != 1:
        raise UsageError("the form must hold the field 'payload' once")
    return found[0]


def _json_object(body: str) -> dict[str, Any]:
    try:
        value = json.loads(body, object_pairs_hook=_without_twins, parse_constant=_refuse_constant)
    except RecursionError:
        raise UsageError("the JSON is nested without end") from None
    except ValueError as error:  # not JSON, or a number of thousands of digits
        raise UsageError(f"the body is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise UsageError("the body is not a JSON object")
    return value


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise UsageError("a key is written twice in the JSON, so it is not clear what is meant")
    return value


def _refuse_constant(name: str) -> None:
    raise UsageError(f"{name} is not JSON")
