"""Connections to addresses that somebody typed: resolved once, checked, and made to the very address that was checked.

So nothing a name resolves to later, and no way of writing an address, leads to the machine itself, to the network it
is in, or to a cloud's metadata service.
"""

from __future__ import annotations

import ipaddress
import socket
from ipaddress import IPv4Address, IPv6Address

from keepflow.errors import RemoteError, Undeliverable

Address = IPv4Address | IPv6Address
#: Metadata services outside of the link-local range.
_METADATA = frozenset({ipaddress.ip_address("100.100.100.200"), ipaddress.ip_address("fd00:ec2::254")})
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def connect(host: str, port: int, *, private: bool, timeout: float) -> socket.socket:
    """Connect to a host by name or address; `private` also allows this machine and private networks.

    Raises Undeliverable `egress` when the name stands for any address that is not allowed, RemoteError otherwise.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise RemoteError(f"cannot resolve {host}: {getattr(error, 'strerror', None) or error}") from None
    places = [(family, place) for family, _, _, _, place in found]
    for _, place in places:
        check(str(place[0]), host, private=private)
    problem = "it has no address"
    for family, place in places:
        connection = socket.socket(family, socket.SOCK_STREAM)
        try:
            connection.settimeout(timeout)
            connection.connect(place)
        except OSError as error:
            connection.close()
            problem = str(error.strerror or error)
        else:
            return connection
    raise RemoteError(f"cannot connect to {host}:{port}: {problem}")


def check(address: str, host: str, *, private: bool) -> None:
    """Raise Undeliverable `egress` for an IP address that may not be connected to."""
    found = _meant(ipaddress.ip_address(address.partition("%")[0]))
    local = found.is_link_local or found.is_multicast or found.is_unspecified or found in _METADATA
    if local or (found.is_reserved and not found.is_loopback):
        raise Undeliverable(f"{host} is {found}, where nothing is ever sent to", code="egress")
    if not private and not found.is_global:
        raise Undeliverable(f"{host} is {found}, a private address; `private: true` allows it", code="egress")


def _meant(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 address stands for, if it stands for one."""
    if isinstance(address, IPv6Address):
        if address in _NAT64:
            return IPv4Address(address.packed[-4:])
        teredo = address.teredo[1] if address.teredo else None
        return address.ipv4_mapped or address.sixtofour or teredo or address
    return address
