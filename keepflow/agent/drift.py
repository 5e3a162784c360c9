"""What on this host is not as the last deployment left it: somebody moved the flag, or put another container there."""

from __future__ import annotations

from keepflow.agent.deployment import Difference
from keepflow.agent.instances import History
from keepflow.core import names
from keepflow.ports import ContainerFacts, Site, Target, Traffic


def differences(history: History, state: Traffic | None, found: ContainerFacts | None) -> tuple[Difference, ...]:
    """Compare what is remembered with the flags and with the container that answers; () when nothing was deployed."""
    expected = history.current
    if expected is None or history.slot is None:
        return ()
    told = []
    if state is None:
        told.append(Difference("flags", f"slot {history.slot}", "no flag that can be read"))
    elif state.maintenance:
        told.append(Difference("visitors", "the release", "the maintenance page"))
    elif state.slot != history.slot:
        told.append(Difference("slot", history.slot, state.slot or "none"))
    if found is None:
        told.append(Difference("container", _short(expected.container_id), "none"))
    elif expected.container_id and found.id != expected.container_id and (state is None or state.slot == history.slot):
        told.append(Difference("container", _short(expected.container_id), _named(found)))
    if found is not None and found.image_id != expected.image_id:
        told.append(Difference("image", expected.image_id, found.image_id))
    return tuple(told)


def answering(site: Site, slot: str, target: Target) -> ContainerFacts | None:
    """Return the container that has a slot's place: by its name, or by its address when somebody took that."""
    holder = target.inspect(names.container(site.service, site.instance, slot))
    if holder is not None and holder.running:
        return holder
    address = (site.blue if slot == "blue" else site.green).rpartition(":")[0]
    return target.at(names.network(site.service, site.instance), address) or holder


def is_ours(found: ContainerFacts, site: Site) -> bool:
    """Say whether a deployment made this container."""
    labels = found.labels
    return labels.get(names.LABEL_SERVICE) == site.service and labels.get(names.LABEL_INSTANCE) == site.instance


def _short(container: str) -> str:
    return container[:12] or "one made by keepflow"


def _named(found: ContainerFacts) -> str:
    maker = "" if names.LABEL_DEPLOYMENT in found.labels else ", not made by keepflow"
    return f"{found.id[:12]} ({found.name}{maker})"
