"""What counts as this very machine, and which addresses send in the clear."""

from __future__ import annotations

import pytest

from keepflow.core.loopback import in_the_clear, is_loopback


@pytest.mark.parametrize("host", ["127.0.0.1", "127.255.0.9", "::1", "[::1]", "localhost"])
def test_this_machine_is_known(host: str) -> None:
    assert is_loopback(host)
    assert not in_the_clear(f"http://{f'[{host}]' if host == '::1' else host}:7070/x")


LOOKALIKES = [
    "10.0.0.1",
    "0.0.0.0",  # noqa: S104 - compared, not bound
    "127.0.0.1.example.org",
    "localhost.example.org",
    "127.evil",
    "",
]


@pytest.mark.parametrize("host", LOOKALIKES)
def test_what_only_looks_like_this_machine_is_not_it(host: str) -> None:
    assert not is_loopback(host)
    assert in_the_clear(f"http://{host}")


def test_https_is_never_in_the_clear() -> None:
    assert not in_the_clear("https://10.0.0.1")
    assert not in_the_clear("HTTPS://10.0.0.1")
