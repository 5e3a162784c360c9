"""How many open connections the kernel knows to an address: what a drain waits for."""

from __future__ import annotations

import ipaddress
import sys
from pathlib import Path

_ESTABLISHED = b"01"
_TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))


def established(address: str) -> int:
    """Count this host's established connections to `address` ("10.213.0.2:8080"), IPv4 in IPv6 included."""
    host, _, port = address.rpartition(":")
    return sum(count(table.read_bytes(), host, int(port)) for table in _TABLES if table.exists())


def count(table: bytes, host: str, port: int) -> int:
    """Count the established connections to an IPv4 address in the text of a /proc/net/tcp or tcp6 table.

    One search for the bytes of the remote column and the state behind it, because a busy host has long tables.
    """
    plain = _kernel_hex(ipaddress.IPv4Address(host).packed)
    mapped = _kernel_hex(ipaddress.IPv6Address(f"::ffff:{host}").packed)
    return sum(table.count(b" %s:%04X %s " % (form, port, _ESTABLISHED)) for form in (plain, mapped))


def _kernel_hex(packed: bytes) -> bytes:
    """Write an address as the kernel does: 32-bit words in the order of the machine."""
    words = (packed[at : at + 4] for at in range(0, len(packed), 4))
    return b"".join(b"%08X" % int.from_bytes(word, sys.byteorder) for word in words)
