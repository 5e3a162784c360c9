"""The end of a good deployment: the old container retired, what serves remembered, images nobody needs let go.

The new release serves already, so nothing that goes wrong here undoes it. What only waits for an engine that is down or
for room on the disk is done later; anything else becomes a note on the receipt.
"""

from __future__ import annotations

import time
from dataclasses import replace

from keepflow.agent import draining
from keepflow.agent.deployment import Outcome
from keepflow.agent.instances import History, Served
from keepflow.agent.logs import Log
from keepflow.agent.scene import Scene
from keepflow.core import names
from keepflow.core.states import Phase
from keepflow.errors import KeepflowError, Unavailable

log = Log(__name__)


def conclude(scene: Scene) -> Outcome:
    """Retire the old, remember the new, and return `done`, or `unknown` when that must be tried again."""
    identity = scene.deployment.identity
    for step in (draining.retire_old, Scene.remove_aside, _remember, _drop_unneeded, _drop_files):
        try:
            step(scene)
        except Unavailable as error:
            sentence = f"{identity[:19]} serves, but the old one is not put away yet: {error.message}"
            return Outcome(Phase.UNKNOWN, error.code, sentence, identity)
        except Exception as error:
            if not isinstance(error, KeepflowError):
                log.broke("a good deployment met a bug after the switch", error, deployment=scene.deployment.id)
            scene.receipt.notes.append(f"after the switch: {error}")
    return Outcome(Phase.DONE, "", f"{identity[:19]} serves in the {scene.known_plan().new} slot", identity)


def _remember(scene: Scene) -> None:
    plan, receipt = scene.known_plan(), scene.receipt
    served = Served.of(scene.deployment, plan.image_id, time.time_ns() // 1000, plan.container)
    history = scene.instance.history().after(served, plan.new, scene.policy.keep)
    if receipt.kept_hot_until is not None:
        history = replace(
            history, retired=plan.old_container, retired_until=receipt.kept_hot_until, retired_grace=plan.old_grace
        )
    watched = scene.visitors().new
    scene.instance.save_history(replace(history, requests=watched.requests, errors=watched.errors))


def _drop_unneeded(scene: Scene) -> None:
    """Let go of keep-tags of releases that are no longer remembered; the serving one and the last ones always are."""
    service, instance = scene.deployment.service, scene.deployment.instance
    history: History = scene.instance.history()
    if scene.deployment.identity not in history.identities:  # remembering failed: better keep too much
        return
    needed = {
        names.keep_tag(service, instance, identity) for identity in (*history.identities, *scene.instance.staged())
    }
    repository = names.keep_tag(service, instance, "").rstrip(":")
    for tag, _ in scene.target.kept(repository):
        if tag not in needed:
            scene.target.drop(tag)


def _drop_files(scene: Scene) -> None:
    """Remove the secrets that no container of this instance reads any more."""
    labels = {names.LABEL_SERVICE: scene.deployment.service, names.LABEL_INSTANCE: scene.deployment.instance}
    needed = {facts.labels.get(names.LABEL_DEPLOYMENT, "") for facts in scene.target.mine(labels)}
    scene.held.drop_files(scene.deployment, needed)
