"""Counting connections in the kernel's own tables."""

from __future__ import annotations

import ipaddress
import socket
import sys

from hypothesis import given
from hypothesis import strategies as st

from keepflow.agent.sockets import count, established

_address = st.tuples(st.ip_addresses(v=4).map(str), st.integers(1, 65535))
_row = st.tuples(_address, _address, st.sampled_from(["01", "02", "06", "08", "0A"]), st.booleans())


def _kernel(host: str, port: int, mapped: bool) -> str:
    packed = (ipaddress.ip_address(f"::ffff:{host}") if mapped else ipaddress.ip_address(host)).packed
    words = [int.from_bytes(packed[at : at + 4], sys.byteorder) for at in range(0, len(packed), 4)]
    return "".join(f"{word:08X}" for word in words) + f":{port:04X}"


def _table(rows: list[tuple[tuple[str, int], tuple[str, int], str, bool]]) -> bytes:
    lines = ["  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode"]
    for number, (local, remote, state, mapped) in enumerate(rows):
        ends = f"{_kernel(*local, mapped)} {_kernel(*remote, mapped)}"
        lines.append(f"{number:4d}: {ends} {state} 00000000:00000000 00:00000000 00000000     0        0 12345 1")
    return "\n".join(lines).encode() + b"\n"


@given(st.lists(_row, max_size=20), _address)
def test_only_established_connections_to_exactly_this_address_count(
    rows: list[tuple[tuple[str, int], tuple[str, int], str, bool]], wanted: tuple[str, int]
) -> None:
    rows = [*rows, ((wanted[0], wanted[1]), ("1.2.3.4", 80), "01", False), (("1.2.3.4", 80), wanted, "01", False)]
    expected = sum(remote == wanted and state == "01" for _, remote, state, _ in rows)
    assert count(_table(rows), *wanted) == expected


def test_a_real_connection_is_seen_and_seen_no_more_when_it_is_closed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        assert established(address) == 0
        with socket.create_connection(server.getsockname()), server.accept()[0]:
            assert established(address) == 1
        assert established(address) == 0


def test_ipv4_inside_ipv6_is_seen() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.socket(socket.AF_INET6) as client:
            client.connect(("::ffff:127.0.0.1", port))
            with server.accept()[0]:
                assert established(f"127.0.0.1:{port}") == 1
