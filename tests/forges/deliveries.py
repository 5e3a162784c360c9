"""Webhooks as each forge sends them: realistic payloads, signed its own way."""

from __future__ import annotations

import base64
import hmac
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

SECRET = b"It's a Secret to Everybody"
SIGNING_KEY = bytes(range(32))
#: What the hook of each forge is secured with.
SECRETS = {
    "github": SECRET,
    "bare": SECRET,
    "gitea": SECRET,
    "gitlab": b"whsec_" + base64.b64encode(SIGNING_KEY),
}
HEAD = "6dcb09b5b57875f334f61aebed695e2e4193db5e"
BEFORE = "0d1a26e67d8f5eaf1f6ba5c57fc3c7d91ac0fd1c"
DELIVERY = "72d3162e-cc78-11e3-81ab-4c9367dc0958"
JSON, FORM = "application/json", "application/x-www-form-urlencoded"


def _samples(forge: str) -> dict[str, Any]:
    folder = Path(__file__).parent / "samples" / forge
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


SAMPLES_OF = {forge: _samples(forge) for forge in ("github", "gitea", "gitlab")}
#: `keepflow hook send` speaks like GitHub, and knows no pull requests.
SAMPLES_OF["bare"] = {name: sample for name, sample in SAMPLES_OF["github"].items() if "pull" not in name}
SAMPLES = SAMPLES_OF["github"]


def payload(name: str, forge: str = "github", **changes: Any) -> dict[str, Any]:
    """Return a sample's payload with some of its top fields changed."""
    return {**SAMPLES_OF[forge][name]["payload"], **changes}


def headers(
    event: str, body: bytes = b"", secret: bytes = SECRET, form: bool = False, forge: str = "github"
) -> dict[str, str]:
    """Return the headers of a signed delivery, names in lower case."""
    return {"content-type": FORM if form else JSON, **_HEADERS[forge](event, body, secret)}


def delivery(name: str, *, form: bool = False, forge: str = "github", **changes: Any) -> tuple[dict[str, str], bytes]:
    """Return headers and body of a sample, signed, as JSON or as a form."""
    text = json.dumps(payload(name, forge, **changes))
    body = urlencode({"payload": text}).encode() if form else text.encode()
    signed = text.encode() if forge == "gitea" else body  # Gitea signs the JSON, also when it sends a form
    event = SAMPLES_OF[forge][name]["event"]
    return headers(event, signed, SECRETS[forge], form, forge), body


def _github(event: str, body: bytes, secret: bytes) -> dict[str, str]:
    return {
        "x-github-event": event,
        "x-github-delivery": DELIVERY,
        "x-hub-signature-256": f"sha256={hmac.digest(secret, body, 'sha256').hex()}",
        "user-agent": "GitHub-Hookshot/044aadd",
    }


def _gitea(event: str, body: bytes, secret: bytes) -> dict[str, str]:
    return {
        "x-gitea-event": event,
        "x-gitea-event-type": event,
        "x-gitea-delivery": DELIVERY,
        "x-gitea-signature": hmac.digest(secret, body, "sha256").hex(),
        "user-agent": "Go-http-client/1.1",
    }


def _gitlab(event: str, body: bytes, secret: bytes) -> dict[str, str]:
    sent_at = str(int(time.time()))
    key = base64.b64decode(secret.removeprefix(b"whsec_"))
    signature = hmac.digest(key, b".".join((DELIVERY.encode(), sent_at.encode(), body)), "sha256")
    return {
        "x-gitlab-event": event,
        "x-gitlab-event-uuid": "13792a34-cac6-4fda-95a8-c58e00a3954e",
        "idempotency-key": DELIVERY,
        "webhook-id": DELIVERY,
        "webhook-timestamp": sent_at,
        "webhook-signature": f"v1,{base64.b64encode(signature).decode()}",
        "user-agent": "GitLab/18.8.0",
    }


_HEADERS: dict[str, Callable[[str, bytes, bytes], dict[str, str]]] = {
    "github": _github,
    "bare": _github,
    "gitea": _gitea,
    "gitlab": _gitlab,
}
