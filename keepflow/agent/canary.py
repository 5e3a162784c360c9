"""A canary: the new release gets a share of the visitors, step by step, while the old one serves the others.

The steps go on by themselves, without the master; a person may hold one, hurry it on, or call the whole thing off.
Until the last step is over the flags name the old slot, so whatever kills the agent, the next one puts everything back.
"""

from __future__ import annotations

import threading
import time
from dataclasses import asdict, dataclass, field

from keepflow.agent.scene import Scene
from keepflow.agent.watching import ask_visitors, looks
from keepflow.core import canary
from keepflow.core.states import Phase
from keepflow.errors import DeployFailed
from keepflow.ports import Traffic


@dataclass(frozen=True, slots=True)
class Wish:
    """What a person wants of a canary: `word` is continue, hold or abort; `percent` the step they looked at."""

    word: str
    percent: int | None
    by: str


@dataclass(slots=True)
class Wishes:
    """Wishes on their way to the deployments they are about. Methods may be called from every thread."""

    _lock: threading.Lock = field(default_factory=threading.Lock)
    _waiting: dict[str, list[Wish]] = field(default_factory=dict)

    def put(self, deployment: str, wish: Wish) -> None:
        """Leave a wish."""
        with self._lock:
            self._waiting.setdefault(deployment, []).append(wish)

    def take(self, deployment: str) -> list[Wish]:
        """Take the wishes that came since the last look, oldest first."""
        with self._lock:
            return self._waiting.pop(deployment, [])


def step_by_step(scene: Scene, wishes: Wishes) -> None:
    """Go through the steps the order names; raises DeployFailed when the new release does badly or somebody aborts."""
    deployment, plan = scene.deployment, scene.known_plan()
    if not deployment.canary:
        return
    if plan.old is None or scene.journal.has_act("stop-first"):
        scene.receipt.notes.append("no canary: nothing served beside the new release")
        return
    for percent in deployment.canary:
        _step(scene, percent, wishes)
    scene.ask_slot(None)


def _step(scene: Scene, percent: int, wishes: Wishes) -> None:
    plan, seconds = scene.known_plan(), scene.deployment.canary_hold
    scene.enter(Phase.CANARY, canary.sentence(percent, f"for {seconds} s"))
    with scene.act("canary", percent=percent):
        scene.proxy.switch(scene.site, Traffic(plan.old, net=scene.net, canary=percent, counted=True))
    scene.ask_slot(plan.new)
    began = time.monotonic()
    held = over = False
    for _ in looks(scene):
        for wish in wishes.take(scene.deployment.id):
            if wish.word == "abort":
                raise DeployFailed(f"{wish.by} called the canary off at {percent} %", code="canary-aborted")
            if wish.percent not in (None, percent):
                continue  # about a step that is over
            over = wish.word == "continue"
            held = wish.word == "hold"
            if held:
                scene.say(canary.sentence(percent, f"held by {wish.by}"))
        if over or (not held and time.monotonic() - began >= seconds):
            break
    ask_visitors(scene)
    scene.receipt.canary.append(
        {
            "percent": percent,
            "seconds": round(time.monotonic() - began, 3),
            "visitors": asdict(scene.visitors().new),
        }
    )
