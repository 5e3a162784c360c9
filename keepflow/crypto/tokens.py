"""Bearer tokens: `kf_<kind>_<30 random base62>_<checksum>`; only their digest is ever stored.

The checksum lets a mistyped or foreign token be told apart from a revoked one without asking the database, and lets
scanners of leaked secrets recognise ours.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import string
import zlib

_BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase
_RANDOM, _CHECK = 30, 6
_TOKEN = re.compile(rf"(kf_([a-z]{{1,20}})_[0-9A-Za-z]{{{_RANDOM}}})_([0-9A-Za-z]{{{_CHECK}}})")


def new(kind: str) -> str:
    """Make a token of a kind (lower-case letters, such as `join`, `job`, `api`); 178 random bits."""
    body = f"kf_{kind}_{''.join(secrets.choice(_BASE62) for _ in range(_RANDOM))}"
    token = f"{body}_{_checksum(body)}"
    if kind_of(token) != kind:
        raise ValueError(f"not a kind of token: {kind!r}")
    return token


def kind_of(token: str) -> str | None:
    """Return the kind of a well-formed token, or None when its form or its checksum is wrong."""
    match = _TOKEN.fullmatch(token)
    return match[2] if match and _checksum(match[1]) == match[3] else None


def digest(token: str) -> str:
    """Return what is stored of a token: its SHA-256 in hex."""
    return hashlib.sha256(token.encode(errors="surrogatepass")).hexdigest()


def matches(token: str, stored: str) -> bool:
    """Say, in constant time, whether a token is the one whose digest was stored."""
    return hmac.compare_digest(digest(token).encode(), stored.encode())


def _checksum(body: str) -> str:
    number, digits = zlib.crc32(body.encode()), ""
    for _ in range(_CHECK):
        number, rest = divmod(number, len(_BASE62))
        digits = _BASE62[rest] + digits
    return digits
