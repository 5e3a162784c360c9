"""Adopting what serves: another container of keepflow's own, which a person sent visitors to by hand, becomes expected.

Nothing is started, stopped or switched; only what this host remembers changes.
"""

from __future__ import annotations

import time

from keepflow.agent.deployment import Outcome
from keepflow.agent.drift import answering, is_ours
from keepflow.agent.instances import Served
from keepflow.agent.scene import Scene
from keepflow.core import deploys, names
from keepflow.core.states import Phase
from keepflow.errors import DeployFailed


def adopt(scene: Scene) -> Outcome:
    """Remember what serves as what is to serve; raises DeployFailed when that is not what the order names."""
    deployment = scene.deployment
    scene.enter(Phase.ACCEPTED)
    scene.enter(Phase.PREFLIGHT, "nothing is touched")
    state = scene.proxy.state(scene.site)
    found = answering(scene.site, state.slot, scene.target) if state and state.slot else None
    if state is None or state.slot is None or state.maintenance or found is None or not found.running:
        raise DeployFailed("nothing serves here that could be adopted", code="nothing-serves")
    if not is_ours(found, scene.site) or found.labels.get(names.LABEL_IDENTITY) != deployment.identity:
        raise DeployFailed(f"{found.name} serves, and it is not the release that was ordered", code="other-container")
    if found.labels.get(names.LABEL_DESCRIPTION) != deploys.description_hash(deployment.container):
        raise DeployFailed(f"{found.name} runs with other settings than the order names", code="other-settings")
    history = scene.instance.history()
    served = Served.of(deployment, found.image_id, time.time_ns() // 1000, found.id)
    with scene.act("adopt", container=found.id):
        scene.target.keep(found.image_id, names.keep_tag(deployment.service, deployment.instance, deployment.identity))
        scene.instance.save_history(history.after(served, state.slot, scene.policy.keep))
        scene.target.persist(found.id)
    scene.receipt.slot = state.slot
    scene.receipt.image_id = found.image_id
    scene.receipt.digest_before = scene.receipt.digest_after = deployment.identity
    return Outcome(Phase.DONE, "", f"{deployment.identity[:19]} was adopted as it serves", deployment.identity)
