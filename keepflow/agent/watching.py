"""Looking at a release that visitors were sent to: front door, container, and what visitors are answered.

An answer of the old slot in place of the new one is a failure of the new one: the net is there for visitors, not to
make a release look well.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from keepflow.agent.scene import Scene
from keepflow.core.states import Phase
from keepflow.errors import DeployFailed
from keepflow.ports import ContainerFacts

_LOOK_EVERY = 0.25  #: seconds between two looks at the container and at the record of visitors
_CALM_AFTER = 1.0  #: seconds of good watch after which probes become rare
_TICK = 0.02


def watch(scene: Scene) -> None:
    """Look at the new release for the watch window, or for what a dead process left of it."""
    seconds = _watch_left(scene)
    if seconds <= 0:
        return
    scene.enter(Phase.WATCHING, f"{seconds:g} s")
    began = time.monotonic()
    for _ in looks(scene):
        if time.monotonic() - began >= seconds:
            break
    ask_visitors(scene)


def looks(scene: Scene) -> Iterator[None]:
    """Yield again and again as long as all is well; raises DeployFailed with the evidence when it is not."""
    plan, prober, strikes = scene.known_plan(), scene.start_probing(pause=False), scene.policy.strikes
    address = scene.address(plan.new)
    began = time.monotonic()
    looked = 0.0
    while True:
        bad = [one for one in prober.since(began)[-strikes:] if one.failed or one.address != address]
        if len(bad) == strikes:
            last = bad[-1]
            raise DeployFailed(
                f"the front door answered with status {last.status} from {last.address or 'nobody'}",
                code=whose_fault(scene, "front-door-failing"),
            )
        now = time.monotonic()
        if now - looked >= _LOOK_EVERY:
            still_good(scene)
            ask_visitors(scene)
            looked = now
        if bad or now - began < _CALM_AFTER:
            prober.quickly()
        else:
            prober.slowly()
        yield
        time.sleep(_TICK)


def ask_visitors(scene: Scene) -> None:
    """Raise DeployFailed `visitors-failing` when more of them fail than before."""
    if sentence := scene.visitors().trouble():
        raise DeployFailed(sentence, code="visitors-failing")


def whose_fault(scene: Scene, code: str) -> str:
    """Return `proxy-down` when the proxy itself does not answer, so that no release is blamed for it; else the code."""
    return code if scene.proxy.sees_flags(scene.site) else "proxy-down"


def still_good(scene: Scene) -> ContainerFacts:
    """Return the facts of the new container; raises DeployFailed when it is no longer what was gated."""
    plan = scene.known_plan()
    facts = scene.target.inspect(plan.container)
    if facts is None:
        raise DeployFailed("the new container is gone", code="gone")
    if facts.oom_killed:
        raise DeployFailed("the new container was killed for want of memory", code="out-of-memory")
    if facts.asked_to_end:
        raise DeployFailed(
            "the new container was stopped by a person, or by a restart of the engine", code="stopped-outside"
        )
    if not facts.running or (facts.restarts and not plan.reused):
        raise DeployFailed("the new container ended while visitors came", code="died-after-switch")
    return facts


def _watch_left(scene: Scene) -> float:
    """Return how long to watch: after a crash the rest of the window, but never less than a look."""
    window = scene.policy.watch
    if scene.journal.entered(Phase.DRAINING) is not None:
        return 0.0
    began = scene.journal.entered(Phase.WATCHING)
    passed = 0.0 if began is None else time.time() - began / 1_000_000
    return max(window - max(passed, 0.0), min(window, _CALM_AFTER))
