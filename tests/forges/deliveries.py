"""Webhooks as a forge sends them: realistic payloads, signed."""

from __future__ import annotations

import hmac
import json
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

SECRET = b"It's a Secret to Everybody"
SAMPLES = {
    path.stem: json.loads(path.read_text()) for path in sorted((Path(__file__).parent / "samples").glob("*.json"))
}
HEAD = "6dcb09b5b57875f334f61aebed695e2e4193db5e"
BEFORE = "0d1a26e67d8f5eaf1f6ba5c57fc3c7d91ac0fd1c"


def payload(name: str, **changes: Any) -> dict[str, Any]:
    """Return a sample's payload with some of its top fields changed."""
    return {**SAMPLES[name]["payload"], **changes}


def headers(event: str, body: bytes = b"", secret: bytes = SECRET, form: bool = False) -> dict[str, str]:
    """Return the headers of a signed delivery, names in lower case."""
    return {
        "content-type": "application/x-www-form-urlencoded" if form else "application/json",
        "x-github-event": event,
        "x-github-delivery": "72d3162e-cc78-11e3-81ab-4c9367dc0958",
        "x-hub-signature-256": f"sha256={hmac.digest(secret, body, 'sha256').hex()}",
        "user-agent": "GitHub-Hookshot/044aadd",
    }


def delivery(name: str, *, form: bool = False, **changes: Any) -> tuple[dict[str, str], bytes]:
    """Return headers and body of a sample, signed, as JSON or as a form."""
    text = json.dumps(payload(name, **changes))
    body = urlencode({"payload": text}).encode() if form else text.encode()
    return headers(SAMPLES[name]["event"], body, form=form), body
