"""A repository at its forge: how its API is asked for webhooks and pull requests, and what a webhook still needs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from keepflow.core.events import Event


@dataclass(frozen=True, slots=True)
class FoundHook:
    """A webhook that a forge has. `fits`: it sends, and sends what keepflow reads; `dead`: the forge gave it up."""

    id: str
    url: str
    fits: bool
    dead: bool = False


@dataclass(frozen=True, slots=True)
class HookPlace:
    """How the webhooks of one repository are asked for at its forge, as the forge documents its API.

    All are listed by GET of `url` (`paging` and a page number behind it), made by POST to it, changed by `change` and
    removed by DELETE of `url/ID`.
    """

    url: str
    headers: Mapping[str, str] = field(repr=False)
    body: Callable[[str, str], Mapping[str, Any]] = field(repr=False)  #: (address, secret) → what makes or changes one
    read: Callable[[Mapping[str, Any]], FoundHook] = field(repr=False)
    page: str  #: where a person sees and removes them
    rights: str  #: what the token must be allowed
    change: str = "PATCH"
    paging: str = "per_page=30&page="
    keeps_secret: bool = False  #: a change does not change the secret, so only another hook has another one


@dataclass(frozen=True, slots=True)
class PullPlace:
    """How one pull request is asked for at its forge: by GET of `url/NUMBER`. `read` returns None for a closed one."""

    url: str
    headers: Mapping[str, str] = field(repr=False)
    read: Callable[[Mapping[str, Any]], Event | None] = field(repr=False)
    rights: str  #: what the token must be allowed


@dataclass(frozen=True, slots=True)
class Mending:
    """What is to be done at a forge, in this order: change one or make one, then remove those that are too many."""

    change: str | None = None
    make: bool = False
    remove: tuple[str, ...] = ()


def mending(
    found: Iterable[FoundHook], address: str, remembered: str | None, known: bool, keeps_secret: bool
) -> tuple[Mending, str | None]:
    """Return what is to be done so that exactly one webhook tells `address`, and the id of the one that stays.

    Ours are those of that address, and the one that was `remembered` wherever it points. `known` says that the one
    remembered was given this address and secret: a forge tells nobody the secret of a hook. `keeps_secret` as in
    `HookPlace`. The id is None when one is to be made first.
    """
    ours = [hook for hook in found if hook.url == address or hook.id == remembered]
    kept = next((hook for hook in ours if hook.id == remembered), ours[0] if ours else None)
    if kept is None:
        return Mending(make=True), None
    known = known and kept.id == remembered
    if kept.dead or (keeps_secret and not known):
        return Mending(make=True, remove=tuple(hook.id for hook in ours)), None
    fits = known and kept.fits and kept.url == address
    others = tuple(hook.id for hook in ours if hook is not kept)
    return Mending(None if fits else kept.id, remove=others), kept.id
