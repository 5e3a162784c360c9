"""Going on with a rollout that another process began: by flags and containers, then by the journal."""

from __future__ import annotations

from keepflow.agent import release_command, rollout
from keepflow.agent.gate import Gate
from keepflow.agent.scene import Plan, Scene
from keepflow.errors import DeployFailed


def pick_up(scene: Scene) -> None:
    """Go on where a dead process stopped if visitors were already sent to the new container and it lives, or raise."""
    told = scene.journal.last("putting-back")
    if told is not None:
        raise DeployFailed(told["sentence"], code=told["code"], log_tail=told["log_tail"])
    state = scene.proxy.state(scene.site)
    plan = scene.plan
    if plan is None or state is None or state.slot != plan.new or not scene.journal.has_act("switch"):
        sentence = "the agent was started again before the switch"
        if release_command.may_have_begun(scene):
            sentence += "; the release command may have run in part, look at what it changes before you deploy again"
        raise DeployFailed(sentence, code="agent-restarted")
    scene.receipt.slot = plan.new
    scene.start_probing(pause=False)
    try:
        _gate_again(scene, plan)
    except DeployFailed as error:
        if error.code != "exited":
            raise
        sentence = f"{error.message}; nobody saw it end"  # a reboot may have ended it, so the release is not blamed
        raise DeployFailed(sentence, code="ended-unseen", log_tail=error.log_tail) from error
    rollout.settle(scene)


def _gate_again(scene: Scene, plan: Plan) -> None:
    """See that a container which already served still does."""
    Gate(
        scene.target,
        plan.container,
        scene.address(plan.new),
        scene.site.server_name,
        scene.deployment.container.health,
        fresh=False,
    ).wait()
