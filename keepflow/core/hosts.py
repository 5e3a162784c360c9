"""Which `Host` a server answers to: a foreign name that points here is DNS rebinding."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit


def is_ours(host: str, url: str) -> bool:
    """Say whether a `Host` header may name the server whose public address is `url`.

    `localhost` and bare IP addresses always may: nobody can point those elsewhere.
    """
    try:
        name = (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return False
    return bool(name) and (name in ("localhost", urlsplit(url).hostname) or _is_address(name))


def same_origin(origin: str, host: str) -> bool:
    """Say whether an `Origin` header names the host the request itself was sent to."""
    try:
        return bool(host) and urlsplit(origin).netloc.lower() == host.lower()
    except ValueError:
        return False


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
