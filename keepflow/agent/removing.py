"""Taking an instance off this host for good: its front first, then containers, volumes, network, images and memory.

Every step is safe to take again, so a removal that was broken off is begun again from its first one.
"""

from __future__ import annotations

from keepflow.agent.deployment import Outcome
from keepflow.agent.scene import Scene
from keepflow.core import names
from keepflow.core.states import Phase
from keepflow.errors import KeepflowError

REMOVED = "removed"  #: code of an instance that is gone


def remove(scene: Scene) -> Outcome:
    """Remove all that an instance has here; what other instances have is not touched."""
    scene.enter(Phase.ACCEPTED)
    try:
        _take_away(scene)
    except KeepflowError as error:
        return Outcome(Phase.FAILED, error.code, f"not removed wholly: {error.message}; the master asks again")
    deployment = scene.deployment
    return Outcome(Phase.DONE, REMOVED, f"{deployment.service}/{deployment.instance} is gone from this host")


def _take_away(scene: Scene) -> None:
    scene.target.ping()
    service, instance = scene.deployment.service, scene.deployment.instance
    scene.proxy.remove(scene.site)
    for container in scene.target.mine({names.LABEL_SERVICE: service, names.LABEL_INSTANCE: instance}):
        scene.target.stop(container.id, scene.deployment.container.stop_timeout)
        scene.target.remove(container.id)
    scene.target.forget(service, instance)
    for tag, _ in scene.target.kept(names.prefix(service, instance) + "-keep"):
        scene.target.drop(tag)
    scene.held.forget(scene.deployment)
    scene.instance.forget()
