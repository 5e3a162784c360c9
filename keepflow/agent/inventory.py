"""What an instance could go back to, as a fact: looked up in the engine, because others clean up on hosts, too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from keepflow.agent.instances import History, Served
from keepflow.core import deploys, names
from keepflow.ports import ContainerFacts, Target

#: hot: its container runs, going back is one rename; cold: its image is on the disk; gone: only a registry may have it;
#: staged: laid on the disk for a promote, never served here.
How = Literal["hot", "cold", "gone", "staged"]


@dataclass(frozen=True, slots=True)
class Kept:
    """One release that served before the present one, newest first in a list of them."""

    identity: str
    how: How
    deployment: str
    since: int  #: UTC microseconds, when it began to serve
    size: int = 0  #: bytes of the image, layers it shares with others included; 0 when gone
    hot_until: int | None = None  #: UTC microseconds


def look(service: str, instance: str, history: History, staged: tuple[str, ...], target: Target) -> list[Kept]:
    """Look at every remembered release but the serving one; raises Unavailable when the engine does not answer."""
    idle = target.inspect(names.container(service, instance, names.other_slot(history.slot))) if history.slot else None
    before = [_kept(service, instance, one, idle, history, target) for one in history.previous]
    images = {identity: target.image(names.keep_tag(service, instance, identity)) for identity in staged}
    ahead = [
        Kept(identity, "staged", "", 0, image.size)
        for identity, image in images.items()
        if image is not None and identity not in history.identities
    ]
    return before + ahead


def _kept(
    service: str, instance: str, one: Served, idle: ContainerFacts | None, history: History, target: Target
) -> Kept:
    image = target.image(names.keep_tag(service, instance, one.identity)) or target.image(one.image_id)
    how: How = "hot" if _runs(one, idle) else "cold" if image else "gone"
    until = history.retired_until if how == "hot" and idle and idle.id == history.retired else None
    return Kept(one.identity, how, one.deployment, one.since, image.size if image else 0, until)


def _runs(one: Served, idle: ContainerFacts | None) -> bool:
    return (
        idle is not None
        and idle.running
        and idle.image_id == one.image_id
        and idle.labels.get(names.LABEL_DESCRIPTION) == deploys.description_hash(one.container)
    )
