"""Getting ready for a promote: the image laid on this host ahead of time, and the release started once to see it live.

Neither sends a visitor anywhere else, and neither changes what is expected to serve.
"""

from __future__ import annotations

from dataclasses import replace

from keepflow.agent import rollout
from keepflow.agent.deployment import Outcome
from keepflow.agent.putting_back import serving_identity
from keepflow.agent.scene import Scene
from keepflow.core import deploys
from keepflow.core.states import Phase
from keepflow.errors import DeployFailed


def stage(scene: Scene) -> Outcome:
    """Have the image on this host, kept by a tag, so that a promote of it pulls nothing."""
    scene.enter(Phase.ACCEPTED)
    scene.enter(Phase.PREFLIGHT, "nothing but the disk is touched")
    scene.target.ping()
    facts = rollout.fetch(scene)
    scene.instance.save_staged(scene.deployment.identity)
    size = f" ({facts.size / 1e6:.0f} MB)" if facts.size else ""
    return Outcome(Phase.DONE, "", f"{scene.deployment.identity[:19]} is on this host{size}", serving_identity(scene))


def rehearse(scene: Scene) -> Outcome:
    """Start the release in the idle slot with the settings it would serve with, gate it, and take it away again."""
    scene.enter(Phase.ACCEPTED)
    why_not = deploys.cannot_run_twice(scene.deployment.container)
    if why_not is not None:
        raise DeployFailed(f"this application cannot be rehearsed: {why_not}", code="cannot-run-twice")
    rollout.preflight(scene)
    rollout.pull(scene)
    rollout.prepare(scene)
    rollout.start(scene)
    rollout.gate(scene)
    _take_away(scene)
    scene.instance.save_staged(scene.deployment.identity)
    seconds = scene.receipt.gate.get("seconds", 0.0)
    not_run = "; its release command was not run" if scene.deployment.container.release_command else ""
    sentence = f"healthy in {seconds:.1f} s; no visitor saw it{not_run}"
    return Outcome(Phase.DONE, "", sentence, serving_identity(scene))


def _take_away(scene: Scene) -> None:
    """Remove the rehearsed container, and forget the hot one whose slot it took."""
    container = scene.known_plan().container
    with scene.act("remove-rehearsed", container=container):
        scene.target.stop(container, scene.deployment.container.stop_timeout)
        scene.target.remove(container)
    scene.remove_aside()
    history = scene.instance.history()
    if history.retired is not None and scene.target.inspect(history.retired) is None:
        scene.instance.save_history(replace(history, retired=None))
        scene.receipt.notes.append("the container kept hot for a rollback gave up its slot; a rollback is cold now")
