"""Which `Host` a server answers to: a foreign name that points here is DNS rebinding."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::[0-9]{1,5})?")


def is_ours(host: str, url: str) -> bool:
    """Say whether a `Host` header may name the server whose public address is `url`.

    `localhost` and bare IP addresses always may: nobody can point those elsewhere.
    """
    match = _HOST.fullmatch(host)
    if match is None:
        return False
    name = (match[1] or match[2]).lower()
    return name in ("localhost", urlsplit(url).hostname) or _is_address(name)


def same_origin(origin: str, host: str) -> bool:
    """Say whether an `Origin` header names the host that the request itself was sent to."""
    return bool(host) and origin.lower() in (f"http://{host.lower()}", f"https://{host.lower()}")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
