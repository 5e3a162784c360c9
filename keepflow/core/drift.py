"""Drift: what serves on a host is not what was deployed there. It is told, never silently mended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from keepflow.core.releases import is_digest


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not as it was deployed."""

    what: str  #: "release", "flags", "visitors", "slot", "container" or "image"
    expected: str
    found: str


def differences(observed: Mapping[str, Any] | None, identity: str | None) -> tuple[Difference, ...]:
    """Compare what a host said last with the identity deployed there; () when it fits, or nothing can be said yet.

    A host with a deployment under way is between two states and says nothing here.
    """
    if observed is None or identity is None or observed.get("busy"):
        return ()
    told = tuple(Difference(one["what"], one["expected"], one["found"]) for one in observed.get("differences") or ())
    found = observed.get("identity")
    if found == identity:
        return told or _ailing(observed)
    return (Difference("release", identity, found or _unnamed(observed)), *told)


def sentence(found: Sequence[Difference]) -> str | None:
    """Say in one sentence what differs; None when nothing does."""
    return "; ".join(_told(one) for one in found) or None


def _told(one: Difference) -> str:
    if one.what == "release":
        return f"{_short(one.found)} serves; {_short(one.expected)} was deployed"
    return f"{one.what}: {_short(one.found)} instead of {_short(one.expected)}"


def _short(text: str) -> str:
    """Return an identity as far as people compare it, anything else as it is."""
    return text[:19] if is_digest(text) else text


def _ailing(observed: Mapping[str, Any]) -> tuple[Difference, ...]:
    """Return what visitors get from the right release when it does not answer them as it should."""
    if observed.get("healthy") is not False:
        return ()
    return (Difference("visitors", "answers of the release", str(observed.get("note") or "none")),)


def _unnamed(observed: Mapping[str, Any]) -> str:
    image = observed.get("image_id")
    return f"a container not made by keepflow, of image {str(image)[:19]}," if image else "nothing"
