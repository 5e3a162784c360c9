"""Submodules: which address `.gitmodules` means, and whether a project may have code from there."""

from __future__ import annotations

import re
from collections.abc import Sequence

MOST = 100  #: submodules of one commit, those of submodules counted
DEEPEST = 5  #: submodules in submodules

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def address(base: str, said: str) -> str:
    """Return the address that `said` means in a repository that came from `base`: as it is, or relative to that."""
    if not said.startswith(("./", "../")):
        return said
    found, rest = base.rstrip("/"), said
    while rest.startswith(("./", "../")):
        up = rest.startswith("../")
        rest = rest[3 if up else 2 :]
        if up:
            cut = max(found.rfind("/"), found.rfind(":") if not _SCHEME.match(found) else -1)
            found = found[: cut if found[cut : cut + 1] == "/" else cut + 1].rstrip("/") if cut >= 0 else ""
    return f"{found}{rest}" if found.endswith(":") else f"{found}/{rest}"


def allowed(url: str, places: Sequence[str]) -> bool:
    """Say whether an address is one of some places, or below one.

    An address that a server may read as another one is none: with `..`, with `//`, or with an escape in its path.
    """
    path = _SCHEME.sub("", url, count=1)
    if "%" in url or "//" in path or {".", ".."} & set(re.split(r"[/:]", path)):
        return False
    return any(url == place or url.startswith(_below(place)) for place in places)


def _below(place: str) -> str:
    return place if place.endswith((":", "/")) else f"{place}/"


def same_host(one: str, other: str) -> bool:
    """Say whether two addresses are of one server, asked in one way."""
    return _server(one) == _server(other) != ""


def _server(url: str) -> str:
    if scheme := _SCHEME.match(url):
        return scheme[0] + url[scheme.end() :].split("/", 1)[0]
    return "" if url.startswith("/") else url.partition(":")[0]
