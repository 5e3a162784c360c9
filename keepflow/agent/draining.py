"""Letting the retired slot finish: its open connections are counted in the kernel, not waited for by the clock."""

from __future__ import annotations

import time

from keepflow.agent.scene import Scene
from keepflow.agent.sockets import established
from keepflow.core.states import Phase
from keepflow.ports import Traffic

_QUIET = 0.1  #: seconds without a connection before a slot counts as drained: one may just be on its way
_POLL = 0.02


def retire_old(scene: Scene) -> None:
    """Take net and counting away, drain the old slot, then stop it or keep it hot."""
    plan = scene.known_plan()
    gone = plan.old is None or scene.journal.has_act("stop-first")
    if not gone:
        scene.enter(Phase.DRAINING)
    if scene.proxy.state(scene.site) != Traffic(plan.new):
        with scene.act("drop-net"):
            scene.proxy.switch(scene.site, Traffic(plan.new))
    if plan.old is None or gone:
        return
    drain(scene, plan.old)
    _let_go(scene)


def drain(scene: Scene, slot: str) -> None:
    """Wait until nobody is connected to a slot, or for the host's longest drain; the receipt tells which."""
    address = scene.address(slot)
    began = time.monotonic()
    at_switch = left = established(address)
    last_seen = began
    while time.monotonic() - began < scene.policy.drain:
        left = established(address)
        now = time.monotonic()
        if left:
            last_seen = now
        elif now - last_seen >= _QUIET:
            break
        time.sleep(_POLL)
    scene.receipt.sockets = {
        "at_switch": at_switch,
        "drained": max(at_switch - left, 0),
        "left": left,
        "seconds": round(time.monotonic() - began, 3),
    }


def _let_go(scene: Scene) -> None:
    plan, policy = scene.known_plan(), scene.policy
    still_open = scene.receipt.sockets.get("left", 0)
    if policy.hot > 0 and plan.old_container:
        scene.receipt.sockets["held"] = still_open
        scene.receipt.kept_hot_until = time.time_ns() // 1000 + int(policy.hot * 1_000_000)
        return
    scene.receipt.sockets["closed"] = still_open
    with scene.act("stop-old", container=plan.old_container):
        scene.target.stop(plan.old_container or "", plan.old_grace)
