"""Where channels that speak HTTP send to, and how: shared by those that do."""

from __future__ import annotations

from collections.abc import Mapping

from keepflow.errors import RemoteError, UsageError
from keepflow.tools.http_post import Place, post

_TIMEOUT = 20  #: seconds


def place_of(url: str, *, private: bool) -> Place:
    """Read an address; raises UsageError, in words that do not hold it."""
    try:
        place = Place.parse(url)
    except ValueError as error:
        raise UsageError(f"the address {error}", code="bad-url") from None
    if not place.tls and not private:
        raise UsageError("the address must begin with https://; `private: true` allows http", code="plain-http")
    return place


def tell(place: Place, body: bytes, headers: Mapping[str, str], *, private: bool, ca_pem: str) -> None:
    """POST one notice; raises RemoteError for anything but a 2xx, so that it is tried again."""
    answer = post(place, body, headers, timeout=_TIMEOUT, private=private, ca_pem=ca_pem)
    if not 200 <= answer.status < 300:
        raise RemoteError(f"{place.host} answered {answer.status}")
