"""Whether an address is this very machine: what goes there passes no wire that anybody could listen on."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit


def is_loopback(host: str) -> bool:
    """Say whether a host is this machine by its own words; a name that only resolves to it is not.

    >>> is_loopback("127.0.0.9"), is_loopback("[::1]"), is_loopback("127.0.0.1.example.org")
    (True, True, False)
    """
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def in_the_clear(url: str) -> bool:
    """Say whether a URL sends what it carries unencrypted over a network.

    >>> in_the_clear("http://ci.example.org"), in_the_clear("http://localhost:7070"), in_the_clear("https://a")
    (True, False, False)
    """
    parts = urlsplit(url)
    return parts.scheme != "https" and not is_loopback(parts.hostname or "")
